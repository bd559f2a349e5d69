// Where elements lie in shared memory tiles and in a warpgroup's registers: the same maps on the GPU and in tests.
//
// Source: PTX ISA 8.x, "Asynchronous Warpgroup Level Matrix Shared Memory Layout" and "Register Fragments"; tensor map
// swizzling, "Swizzling modes".
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define SHOESTRING_HOST_DEVICE __host__ __device__
#else
#define SHOESTRING_HOST_DEVICE
#endif

namespace shoestring::cuda {

// What wgmma needs to know of a tile in shared memory, swizzled in atoms of 8 rows of 128 bytes: where it begins, and
// how far apart neighbouring atoms lie. Along the contracted dimension (K-major) only `stride_bytes` counts, between
// groups of 8 rows; across it (MN-major) `stride_bytes` lies between groups of 8 steps of k, `leading_bytes` between
// atoms of 64 rows.
SHOESTRING_HOST_DEVICE constexpr uint64_t TileDescriptor(uint32_t address, uint32_t leading_bytes,
                                                         uint32_t stride_bytes) {
  constexpr uint64_t kSwizzle128Bytes = uint64_t{1} << 62;
  return kSwizzle128Bytes | static_cast<uint64_t>(stride_bytes >> 4) << 32 |
         static_cast<uint64_t>(leading_bytes >> 4) << 16 | ((address & 0x3ffff) >> 4);
}

// The 128-byte swizzle permutes the sixteen-byte pieces of each line of 128 bytes by the line's number, modulo 8.
// Applies to addresses in tiles that begin at a multiple of 1,024.
SHOESTRING_HOST_DEVICE constexpr uint32_t Swizzle128(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }

// Element i of 64 of a 64 x 128 sum that thread `thread` of a warpgroup holds.
SHOESTRING_HOST_DEVICE constexpr int SumRow(int thread, int i) {
  return thread / 32 * 16 + thread % 32 / 4 + (i % 4 >= 2 ? 8 : 0);
}
SHOESTRING_HOST_DEVICE constexpr int SumColumn(int thread, int i) { return i / 4 * 8 + thread % 4 * 2 + i % 2; }

// Which stage of a pipeline comes next and the parity of its phase; both sides count alike.
struct PipelineState {
  int stage = 0;
  uint32_t phase = 0;
  SHOESTRING_HOST_DEVICE void Next(int stages) {
    if (++stage == stages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

}  // namespace shoestring::cuda
