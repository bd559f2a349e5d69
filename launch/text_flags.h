// The flags that say how text becomes documents and which of them are held out, alike for every verb that reads text.
#pragma once

#include "absl/status/status.h"
#include "data/prepare.h"
#include "launch/flags.h"

namespace shoestring {

// --input, --json-key, --text-split, --document-bytes, --validation-fraction, --threads.
void DeclareTextFlags(po::options_description& flags);

// Sets inputs, reader, validation_fraction and threads. INVALID_ARGUMENT naming the flag.
absl::Status ReadTextFlags(const Values& values, PrepareOptions& options);

}  // namespace shoestring
