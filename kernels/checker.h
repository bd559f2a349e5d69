// What backend.cc checks the arguments of operations with: sets of dtypes, shapes, and messages that name the culprit.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/check.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace shoestring::checks {

using Types = uint32_t;  // a set of dtypes
constexpr Types Only(DType dtype) { return Types{1} << static_cast<int>(dtype); }
inline constexpr Types kF32 = Only(DType::kF32);
inline constexpr Types kF64 = Only(DType::kF64);
inline constexpr Types kI32 = Only(DType::kI32);
inline constexpr Types kI64 = Only(DType::kI64);
inline constexpr Types kFp8 = Only(DType::kE4M3) | Only(DType::kE5M2);
inline constexpr Types kQuantised = kFp8 | Only(DType::kE5M6);
inline constexpr Types kAct = kF32 | Only(DType::kBF16);
inline constexpr int64_t kAny = -1;  // any number of rows or columns

inline std::string Describe(Types types, int64_t rows, int64_t cols) {
  std::string out;
  for (int i = 0; i <= static_cast<int>(DType::kU8); ++i) {
    if ((types >> i & 1) != 0) absl::StrAppend(&out, out.empty() ? "" : "|", Name(static_cast<DType>(i)));
  }
  const auto extent = [](int64_t n) { return n == kAny ? std::string("any") : absl::StrCat(n); };
  return absl::StrCat(out, " [", extent(rows), ", ", extent(cols), "]");
}

// Checks the tensors of one call; a failure names the operation, the tensor, what it is and what it must be.
class Checker {
 public:
  Checker(const Backend& backend, const char* op) : backend_(backend), op_(op) {}

  void Tensor(const char* name, const ConstView& x, Types types, int64_t rows, int64_t cols) const {
    const bool fits = (types & Only(x.dtype)) != 0 && (rows == kAny || rows == x.rows) &&
                      (cols == kAny || cols == x.cols) && (x.data != nullptr || x.elements() == 0);
    if (!fits) {
      const char* null = x.data == nullptr ? ", null" : "";
      Fail(absl::StrCat(name, " is ", Describe(Only(x.dtype), x.rows, x.cols), null, ", must be ",
                        Describe(types, rows, cols)));
    }
    if (!backend_.Supports(x.dtype)) {
      Fail(absl::StrCat(name, " is ", Name(x.dtype), ", which backend ", backend_.name(), " does not support"));
    }
  }

  // A tensor that may be left out.
  void Optional(const char* name, const ConstView& x, Types types, int64_t rows, int64_t cols) const {
    if (x) Tensor(name, x, types, rows, cols);
  }

  // Values and, exactly if they are of a quantised type, scales: `scale_rows` of them, by default those of a matrix.
  template <typename ViewType>
  void WithScales(const char* name, const BasicOperand<ViewType>& x, Types types, int64_t rows, int64_t cols,
                  int64_t scale_rows = kAny) const {
    Tensor(name, x.values, types, rows, cols);
    const Tile& tile = x.tile;
    if (!x.quantised()) {
      if (x.scales) Fail(absl::StrCat(name, " has scales but is ", Name(x.values.dtype)));
      return;
    }
    if (!x.scales || tile.rows <= 0 || tile.cols <= 0) {
      Fail(absl::StrCat(name, " is ", Name(x.values.dtype), " without scales"));
    }
    Tensor("its scales", x.scales, kF32, scale_rows == kAny ? ScaleRows(tile, x.values.rows) : scale_rows,
           ScaleColumns(tile, x.values.cols));
  }

  // Tokens of a grouped operation: tiles of one row, or tiles that start anew at each segment.
  template <typename ViewType>
  void Grouped(const char* name, const BasicOperand<ViewType>& x, Types types, int64_t rows, int64_t cols,
               int64_t groups) const {
    WithScales(name, x, types, rows, cols, x.tile.rows > 1 ? SegmentScaleRows(x.tile, rows, groups) : kAny);
  }

  void Contiguous(const char* name, const ConstView& x) const {
    if (!x.contiguous()) Fail(absl::StrCat(name, " must be contiguous"));
  }

  void Require(bool holds, absl::string_view what) const {
    if (!holds) Fail(what);
  }

 private:
  [[noreturn]] void Fail(absl::string_view what) const {
    internal::CheckFailed(__FILE__, __LINE__, absl::StrCat(op_, ": ", what));
  }
  const Backend& backend_;
  const char* op_;
};

}  // namespace shoestring::checks
