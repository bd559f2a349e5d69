// How matrix products are launched on the GPU, as pure functions of what is multiplied; nothing here needs a GPU.
//
// description (shapes, types, strides, alignment) -> configuration (route, tiles, shared memory, grid, workspace) ->
// launch (kernels/cuda/gemm.h). All sizes are in elements unless the name says bytes.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/cuda/gemm_scale_layout.h"
#include "kernels/operations.h"
#include "kernels/tensor.h"

namespace shoestring::cuda {

// One product c = op(a) op(b), or one a group, as Backend::Gemm and Backend::GroupedGemm define them.
struct ProductDescription {
  GemmLayout layout = GemmLayout::kNT;
  // Of one group's product. The extent that segments cut (m of kNT and kNN, k of kTN) is Segments::max_rows.
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  int64_t groups = 0;  // 0: one plain product
  DType a_type = DType::kBF16;
  DType b_type = DType::kBF16;
  DType c_type = DType::kBF16;
  bool accumulate = false;
  Tile a_tile;
  Tile b_tile;
  Fp8Accumulation how;
  int64_t a_stride = 0;
  int64_t b_stride = 0;
  int64_t c_stride = 0;
  // The largest power of two that divides the address, at most 256.
  int64_t a_alignment_bytes = 256;
  int64_t b_alignment_bytes = 256;
  int64_t c_alignment_bytes = 256;

  bool fp8() const { return IsQuantised(a_type); }
  bool by_tokens() const { return layout == GemmLayout::kTN; }  // tokens are contracted
  int64_t matrices() const { return groups > 0 ? groups : 1; }
};
ProductDescription Describe(GemmLayout layout, const Segments& segments, const Operand& a, const Operand& b,
                            const View& c, bool accumulate, const Fp8Accumulation& how);
// One line: "NT m 4096 n 7168 k 2048 groups 8 e4m3 x e4m3 -> bf16".
std::string ToString(const ProductDescription& description);

// Which code multiplies.
enum class ProductRoute {
  kNothing,      // no element of c, or nothing to add to it
  kZero,         // an empty sum is assigned
  kLibrary,      // cuBLASLt
  kTensorCores,  // our own wgmma kernels, grouped_gemm_fp8.cu and grouped_gemm_bf16.cu
  kPlain,        // a loop an element, grouped_gemm_plain.cu: any shape, slow
};
const char* Name(ProductRoute route);

// Tiles of the wgmma kernels. A block of three warpgroups: one loads, two multiply 64 rows of c each.
inline constexpr int kBlockM = 128;
inline constexpr int kBlockN = 128;
inline constexpr int kBlockBytesK = 128;  // of a row in shared memory: one 128-byte swizzle atom
inline constexpr int kBlockThreads = 384;
inline constexpr int64_t kMaxSharedBytes = 227 * 1024;  // of a block on compute capability 9.0
inline constexpr int kFp8Interval = 128;                // promotion interval and tile of the FP8 kernels
inline constexpr int kPlainBlock = 16;                  // tile of the plain kernel

// Shared memory of a wgmma kernel: `stages` times (a, b, scales of both), then two barriers a stage. The tiles begin at
// a multiple of 1,024 bytes, which swizzling needs.
struct StageLayout {
  int64_t a_bytes = 0;
  int64_t b_bytes = 0;
  int64_t scale_bytes = 0;  // of one operand
  int stages = 0;
  int64_t bytes() const { return a_bytes + b_bytes + 2 * scale_bytes; }
  int64_t shared_bytes() const { return 1024 + stages * (bytes() + 2 * 8); }
};
StageLayout StagesOf(bool fp8);

// Parts of the workspace; each begins at a multiple of 256 bytes. A part of 0 bytes is not needed.
struct ProductWorkspace {
  int64_t a_codes_bytes = 0;   // transposed copy of a: [m, k_padded]
  int64_t b_codes_bytes = 0;   // transposed copy of b: [matrices * n, k_padded] or [n, k_padded]
  int64_t a_scales_bytes = 0;  // as cuBLASLt wants them
  int64_t b_scales_bytes = 0;
  int64_t library_bytes = 0;  // for cuBLASLt itself
  int64_t b_codes_offset() const;
  int64_t a_scales_offset() const;
  int64_t b_scales_offset() const;
  int64_t library_offset() const;
  int64_t total_bytes() const;
};

// How scales reach cuBLASLt: those of (outer, inner) of `to` lie outer * outer_stride + inner * inner_stride from the
// operand's first.
struct ScalePacking {
  ScaleLayout to;
  int64_t outer_stride = 0;
  int64_t inner_stride = 0;
};
// How our FP8 kernels find scales: those of (group, outer, block of k) lie group * group + outer * outer + block *
// block from the operand's first; where tokens are contracted, blocks are counted from the first segment's
// (SegmentScaleRow). `outer` is a row of a; of b a column where tokens are contracted, else a block of 128 columns.
struct ScaleStrides {
  int64_t group = 0;
  int64_t outer = 0;
  int64_t block = 0;
};
// `stride`: of the operand's scales as the menu stores them.
ScalePacking PackingOfA(const ProductDescription& description, int64_t stride);
ScalePacking PackingOfB(const ProductDescription& description, int64_t stride);
ScaleStrides StridesOfA(const ProductDescription& description, int64_t stride);
ScaleStrides StridesOfB(const ProductDescription& description, int64_t stride);

struct ProductConfig {
  ProductRoute route = ProductRoute::kNothing;
  // The route to take should cuBLASLt refuse the product at run time; `route` itself otherwise.
  ProductRoute without_library = ProductRoute::kNothing;
  std::string refusals;  // who will not multiply this, and why; empty if nobody refused
  // FP8 tensor cores of Hopper read operands along the contracted dimension only.
  bool transpose_a = false;
  bool transpose_b = false;
  int64_t k_padded = 0;  // row length of transposed copies
  StageLayout stages;
  int64_t grid = 0;  // blocks of our own kernels: they stay and take tile after tile
  ProductWorkspace workspace;
  // Where the workspace does not suffice, c is made in two parts, the first of so many columns or, by tokens, rows of
  // each group. Both 0: at once; or, if `too_small`, not at all.
  int64_t split_n = 0;
  int64_t split_m = 0;
  bool too_small = false;
};

struct ProductOptions {
  int sm_count = 132;
  int64_t workspace_bytes = int64_t{512} << 20;
  int64_t library_bytes = int64_t{32} << 20;  // what cuBLAS's documentation asks for on Hopper
};
ProductConfig Configure(const ProductDescription& description, const ProductOptions& options);

// Empty, or why cuBLASLt's block-scaled FP8 product (kernels/cuda/gemm_library.h) cannot do this.
std::string LibraryRefusal(const ProductDescription& description);
// Empty, or why our wgmma kernels cannot do this.
std::string TensorCoreRefusal(const ProductDescription& description);

// Tokens of a segment begin at a multiple of 128 in a transposed copy: where their scales lie (SegmentScaleRow), times
// 128. Neighbouring segments never overlap, whatever the counts are.
constexpr int64_t PaddedTokens(int64_t max_rows, int64_t groups) {
  return groups > 0 ? SegmentScaleRows({kFp8Interval, 1}, max_rows, groups) * kFp8Interval
                    : (max_rows + kFp8Interval - 1) / kFp8Interval * kFp8Interval;
}

}  // namespace shoestring::cuda
