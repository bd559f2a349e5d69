// Matrix products on the CPU: our own packed kernels, FP32 accumulation, bits that depend on values and K alone.
//
//   NT  C[M, N] = A[M, K] * B[N, K]^T     forward: x [T, K] * weight [N, K]
//   NN  C[M, N] = A[M, K] * B[K, N]       gradient of the input
//   TN  C[M, N] = A[K, M]^T * B[K, N]     gradient of the weight
//
// Order of sums (NUMERICS.md rule 7): an element of C is summed over blocks of K (kGemmBlockDwords), inside a block in
// the order of k; block sums are added in order; the whole sum is then added to C, or rounded once. So a row does not
// depend on M, on its place in M, on N, or on the number of threads; a weight gradient depends on its tokens and their
// count only; and accumulating is exactly the sum of C and of what assigning would have stored in f32.
//
// FP8 operands are summed as Fp8Accumulation (kernels/operations.h) defines; those bits are the same at every level.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/gemm_micro.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/operations.h"
#include "kernels/tensor.h"

namespace shoestring {

// The scales of an FP8 operand: element (row, column) of the stored matrix has the scale
// data[row / tile.rows * stride + column / tile.cols].
struct ScaleGrid {
  const float* data = nullptr;
  int64_t stride = 0;
  Tile tile;

  // That of the part of the matrix below row `rows` of scales.
  ScaleGrid Below(int64_t rows) const { return {data + rows * stride, stride, tile}; }
};

// What a product of FP8 operands needs beyond a GemmCall's other fields.
struct Fp8Call {
  DType b_type = DType::kE4M3;  // A's is in_type; kE4M3 or kE5M2
  ScaleGrid a, b;
  // `interval` is at most kMaxPromotionInterval. Tiles are a multiple of it along K, or not shorter than K.
  Fp8Accumulation how;
};

// One product. Leading dimensions are in elements. C must not overlap A or B.
struct GemmCall {
  GemmLayout layout = GemmLayout::kNT;
  int64_t m = 0, n = 0, k = 0;
  DType in_type = DType::kF32;  // kF32 or kBF16, of A and B; or of A kE4M3 or kE5M2: then `fp8` counts
  const void* a = nullptr;
  int64_t lda = 0;
  const void* b = nullptr;
  int64_t ldb = 0;
  DType out_type = DType::kF32;
  void* c = nullptr;
  int64_t ldc = 0;
  bool accumulate = false;  // C += instead of C =; C must be f32
  Fp8Call fp8 = {};
};

// One product a group (an expert). Group g owns the rows [offsets[g], offsets[g + 1]) of the token operands; `each`
// describes the product of group 0, with the token operands starting at row 0.
//   NT, NN: tokens are M: A and C rows of g; B of g starts `stride` elements after that of g - 1, its scales
//           `scale_rows` rows after. each.m is ignored.
//   TN:     tokens are K: A and B rows of g, scales at SegmentScaleRow; C of g starts `stride` elements after that of
//           g - 1. each.k is ignored. A group without tokens leaves its C alone when accumulating, and zeroes it
//           otherwise.
struct GroupedGemmCall {
  GemmCall each;
  int groups = 0;
  const int32_t* offsets = nullptr;  // [groups + 1], not decreasing
  int64_t stride = 0;
  int64_t scale_rows = 0;
};

// The rectangle of C that a task computes.
struct GemmPart {
  int64_t row = 0, rows = 0, column = 0, columns = 0;
};

// Owns the packing scratch (about 1.4 MB a thread); one call at a time. The pool must outlive it.
class CpuGemm {
 public:
  CpuGemm(ThreadPool* pool, Isa isa);

  void Run(const GemmCall& call);
  void RunGrouped(const GroupedGemmCall& call);

  Isa isa() const { return isa_; }
  ThreadPool* pool() const { return pool_; }

 private:
  // How one product is cut into tasks: a grid of row chunks by column chunks.
  struct Plan {
    GemmCall call;
    int64_t row_chunks, column_chunks;
    int64_t first_task;
  };
  struct Scratch;
  struct ScratchDeleter {
    void operator()(Scratch* scratch) const;
  };

  // The micro-kernels of a call, its packing of A, and apart from these its packing of B.
  struct Kernels : GemmKernels {
    const PackTable* pack_b;
  };
  Kernels KernelsFor(const GemmCall& call) const;
  Plan SmallestPlan(const GemmCall& call) const;  // the fewest tasks that the scratch permits
  Plan BestPlan(const GemmCall& call) const;      // for a product that has the pool to itself
  Plan PlanOfGroup(const GemmCall& call, int64_t tasks_wanted) const;
  void RunPlans();
  void RunTask(const Plan& plan, int64_t task, Scratch& scratch) const;
  static void RunBlock(const GemmCall& call, const Kernels& kernels, const GemmPart& part, int64_t k0, int64_t k,
                       Scratch& scratch);

  ThreadPool* pool_;
  Isa isa_;
  const LevelKernels& level_;
  std::vector<std::unique_ptr<Scratch, ScratchDeleter>> scratch_;  // one a thread
  std::vector<Plan> plans_;                                        // of the current call; grows to the most groups seen
};

// The kernels of a level; CHECKs that this machine can run them.
const LevelKernels& KernelsOf(Isa isa);

}  // namespace shoestring
