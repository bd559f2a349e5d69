// The FP8 recipe of the V3 report, and variants of it, for tests.
#pragma once

#include <string>

#include "base/check.h"
#include "configs/schema/precision.pb.h"
#include "google/protobuf/text_format.h"

namespace shoestring {

// V3 report, sections 3.3.1 to 3.3.3. `changes` (of the field `fp8`) are merged into it.
inline config::PrecisionConfig Fp8Precision(const std::string& changes = "") {
  config::PrecisionConfig precision;
  CHECK(google::protobuf::TextFormat::ParseFromString(R"(
    mode: FP8 moments: MOMENTS_BF16
    fp8 {
      activation_format: E4M3 weight_format: E4M3 gradient_format: E4M3
      activation_tile { rows: 1 columns: 128 } weight_tile { rows: 128 columns: 128 }
      gradient_tile { rows: 1 columns: 128 } weight_gradient_tile { rows: 128 columns: 1 }
      promotion_interval: 128 accumulation: ACCUMULATE_FP32
      power_of_two_activation: false power_of_two_weight: false power_of_two_gradient: false
      power_of_two_attention_output: true power_of_two_dispatch: true power_of_two_dispatch_gradient: true
      cached_linear_input: E4M3 cached_attention_output: E5M6 cached_swiglu_input: E4M3
      dispatch_format: E4M3 dispatch_gradient_format: E4M3 combine_format: BF16
    })",
                                                      &precision));
  config::Fp8Recipe other;
  CHECK(google::protobuf::TextFormat::ParseFromString(changes, &other));
  precision.mutable_fp8()->MergeFrom(other);
  return precision;
}

}  // namespace shoestring
