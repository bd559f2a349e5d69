// Which tile of c a block of a persistent kernel computes next: the same walk on the GPU and, in tests, on the CPU.
//
// Tiles are numbered group by group; block b takes tiles b, b + grid, ... The counts of tokens are read where they lie,
// in device memory: the host never waits for them. All tiles together number below 2^31 (Configure checks).
#pragma once

#include <cstdint>

#include "kernels/cuda/gemm_tile_layout.h"

namespace shoestring::cuda {

// Rows [first, first + count) of the grouped matrix belong to the group.
struct GroupedTile {
  int group = 0;
  int first = 0;
  int count = 0;
  int m_tile = 0;
  int n_tile = 0;
};

class GroupedSchedule {
 public:
  // Rows of tiles that are walked together before the next column of tiles: their operands stay in the second-level
  // cache.
  static constexpr int kBand = 16;

  // `offsets` [groups + 1], or null: one group of `rows`. `by_tokens`: c has `m_tiles` rows of tiles in every group;
  // otherwise as many as its tokens fill, of `block_m` each.
  SHOESTRING_HOST_DEVICE GroupedSchedule(const int32_t* offsets, int groups, int rows, bool by_tokens, int block_m,
                                         int m_tiles, int n_tiles)
      : offsets_(offsets),
        groups_(offsets == nullptr ? 1 : groups),
        rows_(rows),
        by_tokens_(by_tokens),
        block_m_(block_m),
        m_tiles_(m_tiles),
        n_tiles_(n_tiles) {
    Enter(0);
  }

  // False when there is no such tile. `index` must not decrease from call to call.
  SHOESTRING_HOST_DEVICE bool At(int index, GroupedTile* tile) {
    while (index - before_ >= group_m_tiles_ * n_tiles_) {
      before_ += group_m_tiles_ * n_tiles_;
      if (group_ + 1 >= groups_) {
        group_m_tiles_ = 0;
        group_ = groups_;
        return false;
      }
      Enter(group_ + 1);
    }
    if (group_ >= groups_) return false;
    const int local = index - before_;
    const int band = local / (kBand * n_tiles_);
    const int left = group_m_tiles_ - band * kBand;
    const int height = left < kBand ? left : kBand;
    const int inside = local - band * kBand * n_tiles_;
    tile->group = group_;
    tile->first = first_;
    tile->count = count_;
    tile->m_tile = band * kBand + inside % height;
    tile->n_tile = inside / height;
    return true;
  }

 private:
  SHOESTRING_HOST_DEVICE void Enter(int group) {
    group_ = group;
    first_ = offsets_ == nullptr ? 0 : offsets_[group];
    count_ = offsets_ == nullptr ? rows_ : offsets_[group + 1] - first_;
    group_m_tiles_ = by_tokens_ ? m_tiles_ : (count_ + block_m_ - 1) / block_m_;
  }

  const int32_t* offsets_;
  int groups_;
  int rows_;
  bool by_tokens_;
  int block_m_, m_tiles_, n_tiles_;
  int group_ = 0, first_ = 0, count_ = 0, group_m_tiles_ = 0;
  int before_ = 0;  // tiles of the groups before this one
};

}  // namespace shoestring::cuda
