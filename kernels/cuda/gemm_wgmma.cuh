// Hopper's matrix instruction: a warpgroup multiplies 64 rows by 128 columns out of shared memory (PTX ISA 8.x,
// "Asynchronous Warpgroup Level Matrix Instructions").
#pragma once

#include <cstdint>

#include "kernels/cuda/gemm_pipeline.cuh"
#include "kernels/cuda/gemm_tile_layout.h"

namespace shoestring::cuda {

// A thread's share of a 64 x 128 product; which elements these are: SumRow and SumColumn.
struct WarpgroupSum {
  float d[64];
};

__device__ inline void WarpgroupArrive() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void WarpgroupCommit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Returns when at most `kPending` committed groups are still running.
template <int kPending>
__device__ inline void WarpgroupWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving what it does with the registers across this line.
__device__ inline void HoldSum(WarpgroupSum& sum) {
#pragma unroll
  for (int i = 0; i < 64; ++i) asm volatile("" : "+f"(sum.d[i])::"memory");
}

// sum (+)= a b, with `add` zero: =. The registers are there after WarpgroupWait.
#define SHOESTRING_WGMMA_REGISTERS                                                   \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

#define SHOESTRING_WGMMA_OPERANDS(d)                                                                          \
  "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), \
      "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),  \
      "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), \
      "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), \
      "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), \
      "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), \
      "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), \
      "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])

#define SHOESTRING_WGMMA_FP8(name, a_type, b_type)                                                       \
  __device__ inline void name(WarpgroupSum& sum, uint64_t a, uint64_t b, int add) {                      \
    asm volatile(                                                                                        \
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"                                                     \
        "wgmma.mma_async.sync.aligned.m64n128k32.f32." a_type "." b_type " {" SHOESTRING_WGMMA_REGISTERS \
        "}, %64, %65, p, 1, 1;\n}\n"                                                                     \
        : SHOESTRING_WGMMA_OPERANDS(sum.d)                                                               \
        : "l"(a), "l"(b), "r"(add));                                                                     \
  }
SHOESTRING_WGMMA_FP8(MultiplyE4M3E4M3, "e4m3", "e4m3")
SHOESTRING_WGMMA_FP8(MultiplyE5M2E4M3, "e5m2", "e4m3")
#undef SHOESTRING_WGMMA_FP8

// 16 steps of k of bf16; the last two operands say which tiles are MN-major.
template <bool kTransposeA, bool kTransposeB>
__device__ inline void MultiplyBF16(WarpgroupSum& sum, uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" SHOESTRING_WGMMA_REGISTERS
      "}, %64, %65, p, 1, 1, %67, %68;\n}\n"
      : SHOESTRING_WGMMA_OPERANDS(sum.d)
      : "l"(a), "l"(b), "r"(add), "n"(kTransposeA ? 1 : 0), "n"(kTransposeB ? 1 : 0));
}
#undef SHOESTRING_WGMMA_OPERANDS
#undef SHOESTRING_WGMMA_REGISTERS

}  // namespace shoestring::cuda
