// Finding the first tensor that is not finite.
#include "trainer/nan_guard.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

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

absl::Status CheckGradients(Backend& backend, Stream& stream, const HeldTable& held, const Gradient& gradient,
                            absl::Span<const double> sums, const RankLinks& links, View answer) {
  const auto bad = std::find_if(sums.begin(), sums.end(), [](double sum) { return !std::isfinite(sum); });
  if (bad == sums.end()) return absl::OkStatus();
  const int64_t block = bad - sums.begin();
  const std::vector<int64_t>& first_block = held.first_block();
  const auto after = std::upper_bound(first_block.begin(), first_block.end(), block);
  const int table_index = static_cast<int>(after - first_block.begin()) - 1;
  const Parameter& p = held.whole()[table_index];
  const int64_t matrix_elements = p.rows * p.cols, blocks = NormBlocks(matrix_elements);
  const int64_t matrix = (block - first_block[table_index]) / blocks;
  const int64_t first = (block - first_block[table_index]) % blocks * kNormBlockElements;
  double found[2] = {0.0, 0.0};  // element after `first`, counted from 1, and its value; of others: 0
  for (size_t i = 0; i < held.held().size(); ++i) {
    const HeldParameter& part = held.held()[i];
    const int64_t begin = (matrix - part.first_matrix) * matrix_elements + first - part.reduced.first;
    if (part.table_index != table_index || begin < 0 || begin >= part.reduced.count) continue;
    float value = 0.0f;
    const std::optional<int64_t> element = FirstNonFinite(
        backend, stream, gradient.reduced[i].Columns(begin, std::min(kNormBlockElements, matrix_elements - first)),
        &value);
    CHECK(element.has_value());
    found[0] = static_cast<double>(*element + 1);
    found[1] = value;
  }
  backend.CopyFromHost(stream, found, answer);
  RETURN_IF_ERROR(links.world->AllReduce(stream, answer, links.Named("element that is not finite")));
  backend.CopyToHost(stream, answer, found);
  backend.Synchronize(stream);
  return DescribeElement(p, matrix, first + static_cast<int64_t>(found[0]) - 1, static_cast<float>(found[1]));
}

}  // namespace shoestring
