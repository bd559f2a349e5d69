// A run directory that begins with the weights of a Hugging Face directory.
#pragma once

#include <string>

#include "configs/load.h"

namespace shoestring {

struct ImportRequest {
  std::string from;           // the Hugging Face directory
  std::string run_directory;  // must hold no run
  bool mtp = true;            // false: its MTP modules are left out
  bool with_data = true;      // false: shards are not looked at, and `resume` will refuse the run
};

// Makes the run directory: the checkpoint of step 0, then config.textproto, which makes it a run. `loaded` is
// validated. Prints the outcome to standard output, what went wrong to standard error; gives the exit code.
int ImportRun(const ImportRequest& request, const config::LoadedConfig& loaded);

}  // namespace shoestring
