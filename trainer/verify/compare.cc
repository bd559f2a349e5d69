// Bytes first, then the element in which they differ.
#include "trainer/verify/compare.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <tuple>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "trainer/checkpoint/digest.h"

namespace shoestring {
namespace {

const std::byte* BytesAt(const TensorPart& part, int64_t element) {
  return part.view.data + (element - part.first) * SizeOf(part.view.dtype);
}

uint64_t BitsAt(const TensorPart& part, int64_t element) {
  static_assert(std::endian::native == std::endian::little);
  uint64_t bits = 0;
  std::memcpy(&bits, BytesAt(part, element), SizeOf(part.view.dtype));
  return bits;
}

int64_t EndOf(const TensorPart& part) { return part.first + part.view.elements(); }

// The first element of both that differs.
std::optional<int64_t> FirstDifference(const TensorPart& part, const TensorPart& fragment) {
  const int64_t first = std::max(part.first, fragment.first);
  const int64_t end = std::min(EndOf(part), EndOf(fragment));
  if (first >= end) return std::nullopt;
  CHECK(part.view.dtype == fragment.view.dtype);
  const int64_t size = SizeOf(part.view.dtype);
  const std::byte* const a = BytesAt(part, first);
  const std::byte* const b = BytesAt(fragment, first);
  if (std::memcmp(a, b, (end - first) * size) == 0) return std::nullopt;
  const std::byte* const differs = std::mismatch(a, a + (end - first) * size, b).first;
  return first + (differs - a) / size;
}

// A number of a signed-magnitude format as an integer in the order of values.
uint64_t InOrder(uint64_t bits, int width) {
  const uint64_t sign = uint64_t{1} << (width - 1);
  return (bits & sign) != 0 ? sign - 1 - (bits & (sign - 1)) : sign + bits;
}

bool IsFloat(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF64; }

}  // namespace

std::string BitsAsText(DType dtype, uint64_t bits) {
  switch (dtype) {
    case DType::kF64: return absl::StrFormat("%.17g (0x%016x)", std::bit_cast<double>(bits), bits);
    case DType::kF32: return absl::StrFormat("%.9g (0x%08x)", std::bit_cast<float>(static_cast<uint32_t>(bits)), bits);
    case DType::kBF16: {
      BF16 value;
      value.bits = static_cast<uint16_t>(bits);
      return absl::StrFormat("%.4g (0x%04x)", static_cast<float>(value), bits);
    }
    default: return absl::StrCat(static_cast<int64_t>(bits));
  }
}

uint64_t UnitsApart(DType dtype, uint64_t a, uint64_t b) {
  if (IsFloat(dtype)) {
    const int width = static_cast<int>(8 * SizeOf(dtype));
    a = InOrder(a, width);
    b = InOrder(b, width);
    return std::max(a, b) - std::min(a, b);
  }
  return static_cast<int64_t>(a) < static_cast<int64_t>(b) ? b - a : a - b;
}

absl::Status WholeTensors::Assemble(const std::vector<StepTensor>& tensors,
                                    const std::vector<const StepParts*>& ranks) {
  fragments_.assign(tensors.size(), {});
  for (const StepParts* rank : ranks) {
    for (const TensorPart& part : rank->spoken) fragments_[part.tensor].push_back(part);
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    std::vector<TensorPart>& fragments = fragments_[i];
    std::sort(fragments.begin(), fragments.end(),
              [](const TensorPart& a, const TensorPart& b) { return a.first < b.first; });
    int64_t next = 0;
    bool once = true;
    for (const TensorPart& fragment : fragments) {
      once = once && fragment.first == next;
      if (once) next = EndOf(fragment);
    }
    if (once && next == tensors[i].elements()) continue;
    return absl::InternalError(absl::StrCat(tensors[i].full_name(), ": element ", next, " of ", tensors[i].elements(),
                                            " is not on exactly one rank"));
  }
  return absl::OkStatus();
}

std::string WholeTensors::Sha256Of(int tensor) const {
  Sha256 sha;
  for (const TensorPart& fragment : fragments_[tensor]) {
    sha.Update({reinterpret_cast<const char*>(fragment.view.data), static_cast<size_t>(fragment.view.bytes())});
  }
  return absl::BytesToHexString(sha.Finish());
}

std::vector<Difference> CompareParts(const std::vector<TensorPart>& kept, const WholeTensors& expected, int64_t step,
                                     Rank rank) {
  std::vector<Difference> differences;
  for (const TensorPart& part : kept) {
    for (const TensorPart& fragment : expected.fragments(part.tensor)) {
      const std::optional<int64_t> element = FirstDifference(part, fragment);
      if (!element.has_value()) continue;
      differences.push_back({step, part.tensor, *element, rank, BitsAt(fragment, *element), BitsAt(part, *element)});
      break;
    }
  }
  return differences;
}

bool ComesBefore(const Difference& a, const Difference& b) {
  return std::tie(a.step, a.tensor, a.element, a.rank) < std::tie(b.step, b.tensor, b.element, b.rank);
}

}  // namespace shoestring
