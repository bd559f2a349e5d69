// Hopper's asynchronous copies and the barriers they complete on, one PTX instruction a function (PTX ISA 8.x,
// "Asynchronous Copy", "mbarrier").
#pragma once

#include <cuda.h>

#include <cstdint>

namespace shoestring::cuda {

__device__ inline uint32_t SharedAddress(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// --- barriers: 64 bits of shared memory; a phase ends when all arrivals and all announced bytes are there
// -------------

__device__ inline void BarrierInit(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Makes what threads wrote to shared memory known to the copy engine and to wgmma.
__device__ inline void CopyEngineFence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// The same of initialised barriers.
__device__ inline void BarrierInitFence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  CopyEngineFence();
}
__device__ inline void BarrierArrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Arrives, and announces bytes that the copy engine will deliver.
__device__ inline void BarrierExpect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// Returns when the phase of that parity has ended. A fresh barrier is in phase 0; waiting for parity 1 passes at once.
__device__ inline void BarrierWait(uint32_t barrier, uint32_t parity) {
  uint32_t done = 0;
  while (done == 0) {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.b32 %0, 1, 0, p;\n"
        "}\n"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  }
}

// --- copies ---------------------------------------------------------------------------------------------------------

// A box of a tensor whose corner is element (x, y), x along the contiguous dimension; zeros beyond its edges.
__device__ inline void CopyBox(uint32_t to, const CUtensorMap& from, uint32_t barrier, int x, int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
          to),
      "l"(reinterpret_cast<uint64_t>(&from)), "r"(barrier), "r"(x), "r"(y)
      : "memory");
}
__device__ inline void PrefetchMap(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(reinterpret_cast<uint64_t>(&map)) : "memory");
}
// Four bytes; completes with CopyWordsArrive.
__device__ inline void CopyWord(uint32_t to, const float* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
}
// One of the barrier's arrivals, made when all words that this thread copied have arrived.
__device__ inline void CopyWordsArrive(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// --- shared memory by address ----------------------------------------------------------------------------------------

__device__ inline float LoadShared(uint32_t address) {
  float x;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(address) : "memory");
  return x;
}
__device__ inline float2 LoadSharedPair(uint32_t address) {
  float2 x;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "r"(address) : "memory");
  return x;
}
// Sixteen bytes of zeros.
__device__ inline void StoreZeros(uint32_t address) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(address), "r"(0) : "memory");
}

// --- warpgroups -----------------------------------------------------------------------------------------------------

template <int kRegisters>
__device__ inline void GiveUpRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
// A barrier of some of the block's threads; id 0 is __syncthreads'.
__device__ inline void SyncSome(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

}  // namespace shoestring::cuda
