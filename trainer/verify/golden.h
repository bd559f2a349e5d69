// What a run should leave, as digests in a file of text (docs/formats/golden.md).
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace shoestring {

struct Golden {
  struct Tensor {
    std::string name;    // StepTensor::full_name
    std::string sha256;  // 64 hexadecimal digits
  };
  std::string numerics;         // hash of the config: config::NumericsHash
  std::string instruction_set;  // "avx512"
  std::string data;             // SHA-256 of TokenSource::Description
  std::vector<std::vector<Tensor>> steps;
};

std::string ToText(const Golden& golden);
// DATA_LOSS: "line 7: what is wrong".
absl::StatusOr<Golden> ParseGolden(absl::string_view text);

}  // namespace shoestring
