// What `verify` says: a verdict, the first difference in words, and a table; or the same as JSON.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/mesh.h"
#include "trainer/verify/verify.h"

namespace shoestring {

// What the report does not know itself.
struct VerdictFacts {
  std::string against;  // "one rank", or the golden file
  std::string data;     // where the tokens come from
  std::string instruction_set;
  int64_t peak_memory_bytes = 0;    // of the process
  std::vector<std::string> shrunk;  // fields of the config, before and after; empty: as the config says
};

std::string VerdictText(const VerifyReport& report, const Mesh& mesh, const VerdictFacts& facts);
std::string VerdictJson(const VerifyReport& report, const Mesh& mesh, const VerdictFacts& facts);

}  // namespace shoestring
