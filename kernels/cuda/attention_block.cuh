// Blocks of queries, keys and values in shared memory as f32, and the products of rows that our attention kernels make.
//
// Eight neighbouring lanes own a row of a block; sums over columns inside it run in a fixed order.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/attention_config.h"
#include "kernels/cuda/attention_own.h"

namespace shoestring::cuda {

constexpr int kRowLanes = kAttentionThreads / kAttentionBlock;

__device__ inline float ToFloat(float x) { return x; }
__device__ inline float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline void Assign(float* to, float x) { *to = x; }
__device__ inline void Assign(__nv_bfloat16* to, float x) { *to = __float2bfloat16_rn(x); }

// 32 rows of `cols` floats in shared memory, one word longer than they must be.
struct Block {
  float* data;
  int cols;
  __device__ float* row(int r) const { return data + r * (cols + 1); }
  __device__ float& at(int r, int c) const { return data[r * (cols + 1) + c]; }
};

// Hands out shared memory in the order of the sizes in attention_config.cc.
struct BlockCarver {
  float* next;
  __device__ Block Take(int cols) {
    const Block block = {next, cols};
    next += kAttentionBlock * (cols + 1);
    return block;
  }
};

// Where a sequence and a head lie.
struct HeadPlace {
  int64_t token;  // the sequence's first
  int head;
};

__device__ inline int KeyDim(const AttentionShape& s) { return static_cast<int>(s.nope_dim + s.rope_dim); }

// block = rows [first, first + 32) of the head's stripe of a matrix, zeros from `end` on. All threads; no barrier.
template <typename T>
__device__ void LoadRows(const Block& block, const void* data, int64_t stride, int64_t column, const HeadPlace& place,
                         int first, int end) {
  const T* from = static_cast<const T*>(data) + column;
  for (int i = static_cast<int>(threadIdx.x); i < kAttentionBlock * block.cols; i += kAttentionThreads) {
    const int r = i / block.cols, c = i % block.cols;
    block.at(r, c) = first + r < end ? ToFloat(from[(place.token + first + r) * stride + c]) : 0.0f;
  }
}

template <typename T>
__device__ void LoadQueries(const Block& block, const AttentionCall& call, const HeadPlace& place, int first) {
  LoadRows<T>(block, call.q, call.q_stride, int64_t{place.head} * block.cols, place, first,
              static_cast<int>(call.shape.sequence_length));
}

// Keys: the head's own part, then the part all heads share.
template <typename T>
__device__ void LoadKeys(const Block& block, const AttentionCall& call, const HeadPlace& place, int first) {
  const AttentionShape& s = call.shape;
  const int nope = static_cast<int>(s.nope_dim);
  const T* kv = static_cast<const T*>(call.kv) + place.head * (s.nope_dim + s.value_dim);
  const T* rope = static_cast<const T*>(call.k_rope);
  for (int i = static_cast<int>(threadIdx.x); i < kAttentionBlock * block.cols; i += kAttentionThreads) {
    const int r = i / block.cols, c = i % block.cols;
    const int64_t token = place.token + first + r;
    float x = 0;
    if (first + r < s.sequence_length) {
      x = c < nope ? ToFloat(kv[token * call.kv_stride + c]) : ToFloat(rope[token * call.k_rope_stride + c - nope]);
    }
    block.at(r, c) = x;
  }
}

template <typename T>
__device__ void LoadValues(const Block& block, const AttentionCall& call, const HeadPlace& place, int first) {
  const AttentionShape& s = call.shape;
  LoadRows<T>(block, call.kv, call.kv_stride, place.head * (s.nope_dim + s.value_dim) + s.nope_dim, place, first,
              static_cast<int>(s.sequence_length));
}

template <typename T>
__device__ void LoadOutGradients(const Block& block, const AttentionCall& call, const HeadPlace& place, int first) {
  LoadRows<T>(block, call.d_out, call.d_out_stride, int64_t{place.head} * block.cols, place, first,
              static_cast<int>(call.shape.sequence_length));
}

__device__ inline void SetZero(const Block& block) {
  const int all = kAttentionBlock * (block.cols + 1);
  for (int i = static_cast<int>(threadIdx.x); i < all; i += kAttentionThreads) block.data[i] = 0;
}

// a[r] . b[c]
__device__ inline float Dot(const Block& a, int r, const Block& b, int c) {
  const float* x = a.row(r);
  const float* y = b.row(c);
  float sum = 0;
  for (int i = 0; i < a.cols; ++i) sum = __fmaf_rn(x[i], y[i], sum);
  return sum;
}

// First position that a query of the sequence may see.
__device__ inline int FirstVisible(const AttentionCall& call, const HeadPlace& place, int query) {
  return call.first_visible == nullptr ? 0 : call.first_visible[place.token + query];
}

// Sum over the eight lanes of a row, the same in all of them.
__device__ inline float SumRow(float x) {
#pragma unroll
  for (int step = 1; step < kRowLanes; step *= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}
__device__ inline float MaxRow(float x) {
#pragma unroll
  for (int step = 1; step < kRowLanes; step *= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

}  // namespace shoestring::cuda
