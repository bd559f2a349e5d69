// Tests of a GPU's matrix products and attention that run on tensors of the host: over the real GPU (through the
// backend that mirrors tensors), and over the same sources run on the CPU.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/backend.h"

namespace shoestring {

// A matrix of the host that begins at a multiple of 256 bytes; what lies between rows is 0xff: NaN in every type.
class HostMatrix {
 public:
  HostMatrix(DType dtype, int64_t rows, int64_t cols, int64_t gap);
  HostMatrix(const HostMatrix& other);
  HostMatrix& operator=(const HostMatrix&) = delete;

  View view() const { return view_; }
  double at(int64_t row, int64_t col) const;  // of FP8: what the code stands for
  // Normal numbers; of FP8: codes of finite numbers.
  HostMatrix& Random(uint64_t stream);
  bool SameBits(const HostMatrix& other) const;  // of the elements
  bool GapsUntouched() const;
  std::vector<double> Values() const;  // contiguous

 private:
  std::byte* Base() { return bytes_.data() + (256 - reinterpret_cast<uintptr_t>(bytes_.data()) % 256) % 256; }
  int64_t row_size() const { return BytesOf(view_.dtype, view_.cols); }
  std::vector<std::byte> bytes_;
  View view_;
};

struct ProductCase {
  GemmLayout layout = GemmLayout::kNT;
  int64_t m = 0, n = 0, k = 0;
  std::vector<int32_t> offsets = {};  // empty: dense; they cut m, or k by tokens
  int64_t gap = 0;                    // elements between rows: 16 keeps them aligned, 3 does not
  DType a_type = DType::kE4M3;        // bf16 and f32: of b too; FP8: b is e4m3
  DType c_type = DType::kF32;
  bool accumulate = false;
  Fp8Accumulation how = {};
  int64_t workspace_bytes = int64_t{64} << 20;  // of the stream, where that can be chosen

  int64_t groups() const { return offsets.empty() ? 0 : static_cast<int64_t>(offsets.size()) - 1; }
  bool by_tokens() const { return layout == GemmLayout::kTN; }
};
std::string Name(const ProductCase& c);

struct AttentionCase {
  AttentionShape shape;
  DType act = DType::kF32;
  bool documents = false;
  // Largest permitted |error| / max(|value|, root mean square of the tensor).
  double tolerance = 0;
};

// Runs operations on tensors of the host.
class ProductRunner {
 public:
  virtual ~ProductRunner() = default;
  virtual void Multiply(const ProductCase& c, const Operand& a, const Operand& b, View out) = 0;
  virtual int64_t AttentionWorkspaceBytes(const AttentionShape& shape, bool backward) = 0;
  virtual void AttentionForward(const AttentionArgs& args, View out, View log_sum_exp, View workspace) = 0;
  virtual void AttentionBackward(const AttentionArgs& args, const AttentionBackwardArgs& grads, View workspace) = 0;
  // Whether FP8 products have the bits of docs/numerics.md whoever multiplies; else only where the plain kernel does,
  // and others the tolerance of "On Hopper".
  virtual bool exact() const = 0;
};

// Each checks one case against the CPU backend (FP8) or float64 (bf16, f32).
void ExpectFp8Product(ProductRunner& runner, const ProductCase& c);
void ExpectProduct(ProductRunner& runner, const ProductCase& c);
void ExpectAttention(ProductRunner& runner, const AttentionCase& c);
// What belongs to nobody may be anything: NaN behind the last row, and in the matrix of an expert without tokens.
void ExpectNoLeaks(ProductRunner& runner, GemmLayout layout, DType type);

// Segments with empty groups at both ends and in the middle, short ones, and rows of nobody before the first.
const std::vector<int32_t>& RaggedOffsets();
// Cases small enough for anybody.
std::vector<ProductCase> Fp8Cases();
std::vector<ProductCase> PlainTypeCases();
std::vector<AttentionCase> AttentionCases();

}  // namespace shoestring
