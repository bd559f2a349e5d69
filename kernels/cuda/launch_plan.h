// How the work of a memory-bound operation is cut into blocks and threads: pure functions of shapes, tested without a
// GPU.
//
// A thread takes chunks of eight neighbouring elements: 16 bytes of bf16. No plan depends on alignment or on the
// device, so that the order of a sum depends on shapes only.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/limits.h"

namespace shoestring {

inline constexpr int kChunk = 8;
inline constexpr int kWarp = 32;

constexpr int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t Chunks(int64_t cols) { return DivideUp(cols, kChunk); }

// A row's threads, a multiple of a warp, see all of it: chunk c * threads + t is thread t's c-th one. Blocks hold
// several short rows.
struct RowPlan {
  int threads = kWarp;
  int rows_per_block = 1;
  int64_t chunks = 0;  // of a thread
};
inline constexpr int kRegisterChunks = 4;  // a thread can keep so many between two passes over a row
inline constexpr int kRowThreads = 512;
inline constexpr int kRowBlockThreads = 256;  // where rows are short

constexpr RowPlan PlanRow(int64_t cols) {
  const int64_t warps = DivideUp(DivideUp(std::max<int64_t>(1, Chunks(cols)), kRegisterChunks), kWarp);
  RowPlan plan;
  plan.threads = static_cast<int>(std::min<int64_t>(kRowThreads, warps * kWarp));
  plan.rows_per_block = std::max(1, kRowBlockThreads / plan.threads);
  plan.chunks = DivideUp(Chunks(cols), plan.threads);
  return plan;
}
// Whether a row stays in registers.
constexpr bool FitsRegisters(const RowPlan& plan) { return plan.chunks <= kRegisterChunks; }

// Rows whose chunks have nothing to do with each other, but for neighbours inside a warp: `spans` blocks of one chunk a
// thread beside each other cover a row.
struct SpanPlan {
  int threads = kWarp;
  int rows_per_block = 1;
  int64_t spans = 1;
};
inline constexpr int kSpanThreads = 256;

constexpr SpanPlan PlanSpans(int64_t chunks) {
  SpanPlan plan;
  plan.threads =
      static_cast<int>(std::min<int64_t>(kSpanThreads, DivideUp(std::max<int64_t>(1, chunks), kWarp) * kWarp));
  plan.rows_per_block = std::max(1, kSpanThreads / plan.threads);
  plan.spans = DivideUp(std::max<int64_t>(1, chunks), plan.threads);
  return plan;
}

// Lanes that share the scale of a tile of one row; 0 where a tile is not a power of two of chunks inside a warp.
constexpr int TileLanes(int64_t tile_cols) {
  for (int lanes = 1; lanes <= kWarp; lanes *= 2) {
    if (tile_cols == lanes * kChunk) return lanes;
  }
  return 0;
}

// Softmax over a wide row: a cluster of blocks shares it, each thread keeps its part in registers.
inline constexpr int kSoftmaxThreads = 512;
inline constexpr int kLargestCluster = 8;  // that every device of this kind can place
constexpr int SoftmaxCluster(int64_t cols) {
  int cluster = 1;
  while (cluster < kLargestCluster && Chunks(cols) > int64_t{cluster} * kSoftmaxThreads * kRegisterChunks) cluster *= 2;
  return cluster;
}
constexpr bool SoftmaxFitsRegisters(int64_t cols) {
  return Chunks(cols) <= int64_t{SoftmaxCluster(cols)} * kSoftmaxThreads * kRegisterChunks;
}

// A warp takes a token of the router. Each has room for a number an expert and two numbers a chosen one in shared
// memory.
struct TokenPlan {
  int warps = 1;  // of a block
  int64_t warp_words = 0;
  int64_t block_words = 0;  // shared by the warps: counts of experts
  constexpr int64_t shared_bytes() const { return 4 * (warps * warp_words + block_words); }
};
inline constexpr int64_t kSharedBytes = 48 << 10;  // that a block has without asking

constexpr TokenPlan PlanTokens(int64_t experts, int64_t groups, int64_t chosen, bool counts) {
  TokenPlan plan;
  plan.warp_words = DivideUp(experts, kChunk) * kChunk + groups + 2 * chosen;
  plan.block_words = counts ? experts : 0;
  plan.warps = 8;
  while (plan.warps > 1 && plan.shared_bytes() > kSharedBytes) plan.warps /= 2;
  return plan;
}

// A stable sort of `pairs` by expert: neighbouring pairs go to one warp, a unit; so many units at most.
inline constexpr int64_t kSortUnits = 512;
constexpr int64_t SortUnitPairs(int64_t pairs) {
  return std::max<int64_t>(256, DivideUp(DivideUp(pairs, kSortUnits), kWarp) * kWarp);
}

}  // namespace shoestring
