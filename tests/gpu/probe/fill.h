// Random contents, so that no rate is one of zeros, and the copy kernel that sets the ceiling of memory-bound ones.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace shoestring::probe {

void FillBf16(cudaStream_t stream, void* x, int64_t elements, unsigned seed);                   // about N(0, 1)
void FillE4m3(cudaStream_t stream, void* x, int64_t elements, unsigned seed);                   // about N(0, 1) * 64
void FillScale(cudaStream_t stream, float* x, int64_t elements, unsigned seed);                 // 2^-10 .. 2^-4
void CopyByKernel(cudaStream_t stream, const void* from, void* to, int64_t bytes, int blocks);  // bytes: times 16

}  // namespace shoestring::probe
