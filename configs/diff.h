// What differs between two configs, field by field, and whether it changes the numbers or only the run.
#pragma once

#include <string>
#include <vector>

#include "configs/schema/run.pb.h"

namespace shoestring::config {

struct Difference {
  std::string field;   // "train.phase[0].micro_batch"
  std::string before;  // as a config file says it; empty: not set
  std::string after;
  bool numerics;  // changes the numerics hash; else only the run hash

  // "numerics  train.phase[0].micro_batch: 8 -> 16"
  std::string ToString() const;
};

// Fields in the order of the schema, those that only `after` has last. A default that is said equals one that is not.
// Empty exactly when the two run hashes are equal; no difference says numerics exactly when the numerics hashes are.
std::vector<Difference> Diff(const RunConfig& before, const RunConfig& after);

}  // namespace shoestring::config
