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

// One product. Leading dimensions are in elements. C must not overlap A or B.
struct GemmCall {
  GemmLayout layout = GemmLayout::kNT;
  int64_t m = 0, n = 0, k = 0;
  DType in_type = DType::kF32;  // kF32 or kBF16; of A and B
  const void* a = nullptr;
  int64_t lda = 0;
  const void* b = nullptr;
  int64_t ldb = 0;
  DType out_type = DType::kF32;
  void* c = nullptr;
  int64_t ldc = 0;
  bool accumulate = false;  // C += instead of C =; C must be f32
};

// One product a group (an expert). Group g owns the rows [offsets[g], offsets[g + 1]) of the token operands; `each`
// describes the product of group 0, with the token operands starting at row 0.
//   NT, NN: tokens are M: A and C rows of g; B of g starts `stride` elements after that of g - 1. each.m is ignored.
//   TN:     tokens are K: A and B rows of g; C of g starts `stride` elements after that of g - 1. each.k is ignored. A
//   group
//           without tokens leaves its C alone when accumulating, and zeroes it otherwise.
struct GroupedGemmCall {
  GemmCall each;
  int groups = 0;
  const int32_t* offsets = nullptr;  // [groups + 1], not decreasing
  int64_t stride = 0;
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

  const GemmKernels& KernelsFor(DType type) const;
  Plan SmallestPlan(const GemmCall& call) const;  // the fewest tasks that the scratch permits
  Plan BestPlan(const GemmCall& call) const;      // for a product that has the pool to itself
  Plan PlanOfGroup(const GemmCall& call, int64_t tasks_wanted) const;
  void RunPlans();
  void RunTask(const Plan& plan, int64_t task, Scratch& scratch) const;
  static void RunBlock(const GemmCall& call, const GemmKernels& kernels, const GemmPart& part, int64_t k0, int64_t k,
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
