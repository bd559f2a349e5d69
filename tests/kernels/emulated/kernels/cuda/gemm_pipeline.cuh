// Stands in for kernels/cuda/gemm_pipeline.cuh: barriers, the copy engine and its swizzle by the words of the PTX ISA.
// Addresses of shared memory are offsets into the block's dynamic part. Copies arrive at once.
#pragma once

#include <cuda.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/cuda/gemm_tile_layout.h"
#include "tests/kernels/emulated/cuda_fibers.h"

namespace shoestring::cuda {

// What the emulated MakeTensorMap leaves in a CUtensorMap.
struct EmulatedMap {
  const uint8_t* data;
  int64_t rows, row_bytes, stride_bytes;
  int box_rows;
};

inline uint8_t* SharedByte(uint32_t address) {
  auto& shared = emulated::TheFibers().shared;
  CHECK_LT(address, shared.size());
  return shared.data() + address;
}
inline uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(static_cast<const uint8_t*>(p) - emulated::TheFibers().shared.data());
}

// In the 64 bits of a barrier: arrivals of a phase, arrivals that are missing, bytes that are missing, phases ended.
struct EmulatedBarrier {
  int8_t arrivals, missing, phases, unused;
  int32_t bytes;
};
static_assert(sizeof(EmulatedBarrier) == 8);

inline EmulatedBarrier& BarrierAt(uint32_t address) { return *reinterpret_cast<EmulatedBarrier*>(SharedByte(address)); }
inline void EndPhaseIfDue(EmulatedBarrier& b) {
  emulated::TheFibers().Progress();
  CHECK_GE(b.missing, 0);
  if (b.missing > 0 || b.bytes > 0) return;
  b.missing = b.arrivals;
  b.phases ^= 1;
}
inline void BarrierInit(uint32_t barrier, int arrivals) {
  BarrierAt(barrier) = {static_cast<int8_t>(arrivals), static_cast<int8_t>(arrivals), 0, 0, 0};
}
inline void CopyEngineFence() {}
inline void BarrierInitFence() {}
inline void BarrierArrive(uint32_t barrier) {
  EmulatedBarrier& b = BarrierAt(barrier);
  --b.missing;
  EndPhaseIfDue(b);
}
inline void BarrierExpect(uint32_t barrier, uint32_t bytes) {
  EmulatedBarrier& b = BarrierAt(barrier);
  b.bytes += static_cast<int32_t>(bytes);
  --b.missing;
  EndPhaseIfDue(b);
}
inline void BarrierWait(uint32_t barrier, uint32_t parity) {
  emulated::TheFibers().WaitFor([&] { return BarrierAt(barrier).phases != static_cast<int8_t>(parity); });
}

inline void CopyBox(uint32_t to, const CUtensorMap& from, uint32_t barrier, int x, int y) {
  EmulatedMap map;
  std::memcpy(&map, &from, sizeof(map));
  CHECK_EQ(to % 1024, 0);
  const int64_t element_bytes = map.row_bytes < 0 ? 2 : 1;  // bf16 rows are marked by their sign
  const int64_t row_bytes = map.row_bytes < 0 ? -map.row_bytes : map.row_bytes;
  for (int line = 0; line < map.box_rows; ++line) {
    for (int byte = 0; byte < 128; ++byte) {
      const int64_t row = y + line, at = x * element_bytes + byte;
      const bool inside = row >= 0 && row < map.rows && at >= 0 && at < row_bytes;
      *SharedByte(Swizzle128(to + line * 128 + byte)) = inside ? map.data[row * map.stride_bytes + at] : 0;
    }
  }
  EmulatedBarrier& b = BarrierAt(barrier);
  b.bytes -= map.box_rows * 128;
  EndPhaseIfDue(b);
}
inline void PrefetchMap(const CUtensorMap&) {}
inline void CopyWord(uint32_t to, const float* from) { std::memcpy(SharedByte(to), from, 4); }
inline void CopyWordsArrive(uint32_t barrier) { BarrierArrive(barrier); }

inline float LoadShared(uint32_t address) {
  float x;
  std::memcpy(&x, SharedByte(address), 4);
  return x;
}
inline float2 LoadSharedPair(uint32_t address) {
  CHECK_EQ(address % 8, 0);
  return make_float2(LoadShared(address), LoadShared(address + 4));
}
inline void StoreZeros(uint32_t address) {
  CHECK_EQ(address % 16, 0);
  std::memset(SharedByte(address), 0, 16);
}

template <int kRegisters>
void GiveUpRegisters() {}
template <int kRegisters>
void TakeRegisters() {}
inline void SyncSome(int id, int threads) {
  auto& f = emulated::TheFibers();
  f.Meet(f.kNamedKey + id, threads);
}

}  // namespace shoestring::cuda
