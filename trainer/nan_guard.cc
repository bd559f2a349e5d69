// Finding the first tensor that is not finite.
#include "trainer/nan_guard.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace shoestring {
namespace {

constexpr char kStopPayload[] = "shoestring/stop_on_purpose";

// Index of the first element of `block` that is not finite. Reads the block to the host: this is the end of the run.
std::optional<int64_t> FirstNonFinite(Backend& backend, Stream& stream, ConstView block, float* value) {
  std::vector<float> host(block.elements());
  backend.CopyToHost(stream, block, host.data());
  backend.Synchronize(stream);
  for (size_t i = 0; i < host.size(); ++i) {
    if (!std::isfinite(host[i])) {
      *value = host[i];
      return static_cast<int64_t>(i);
    }
  }
  return std::nullopt;
}

absl::Status DescribeElement(const Parameter& parameter, int64_t matrix, int64_t element, float value) {
  const std::string which = parameter.stack > 1 ? absl::StrCat(", matrix ", matrix, " of the stack") : "";
  return StopOnPurpose(absl::StrCat("gradient of ", parameter.name, which, " is ", value, " at row ",
                                    element / parameter.cols, ", column ", element % parameter.cols,
                                    "; no parameter was changed"));
}

}  // namespace

absl::Status StopOnPurpose(absl::string_view message) {
  absl::Status status = absl::FailedPreconditionError(message);
  status.SetPayload(kStopPayload, absl::Cord("1"));
  return status;
}

bool IsStopOnPurpose(const absl::Status& status) { return status.GetPayload(kStopPayload).has_value(); }

absl::Status CheckLosses(absl::string_view name, absl::Span<const double> values, int64_t waves) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) continue;
    return StopOnPurpose(absl::StrCat(name, " is ", values[i], " in micro-batch (lane ", i / waves, ", wave ",
                                      i % waves, "); no parameter was changed"));
  }
  return absl::OkStatus();
}

absl::Status CheckGradients(Backend& backend, Stream& stream, const std::vector<Parameter>& table,
                            const GradientSet& gradients, absl::Span<const double> sums) {
  size_t next = 0;
  for (size_t p = 0; p < table.size(); ++p) {
    const Parameter& parameter = table[p];
    if (!parameter.trained) continue;
    const int64_t matrix_elements = parameter.rows * parameter.cols;
    const int64_t blocks = NormBlocks(matrix_elements);
    for (int64_t i = 0; i < parameter.stack * blocks; ++i) {
      if (std::isfinite(sums[next++])) continue;
      const int64_t matrix = i / blocks;
      const int64_t first = i % blocks * kNormBlockElements;
      const ConstView flat = gradients.of(p).Reshape(1, parameter.elements());
      const ConstView block =
          flat.Columns(matrix * matrix_elements + first, std::min(kNormBlockElements, matrix_elements - first));
      float value = 0.0f;
      const std::optional<int64_t> element = FirstNonFinite(backend, stream, block, &value);
      CHECK(element.has_value());
      return DescribeElement(parameter, matrix, first + *element, value);
    }
  }
  CHECK_EQ(next, sums.size());
  return absl::OkStatus();
}

}  // namespace shoestring
