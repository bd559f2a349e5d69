// What the GEMM driver and the attention kernels know of one instruction-set level: its register-tile and packing
// functions.
//
// The unit of packed data is the dword: one float, or two neighbouring bf16 along K where the level multiplies pairs
// (vdpbf16ps). Both operands then have the same layouts and the same packing code.
//
//   rows     A tile, K along a row: dword (r, k) at r * kGemmRowStride + k     from row-major [M, K]
//   columns  A tile, K down:        dword (r, k) at k * 16 + r                 from row-major [K, M]
//   panel    B panel of 16 or 32 columns: dword (k, n) at k * width + n
//
// A micro-kernel multiplies one A tile by one B panel over one block of K, adding products in the order of k into FP32
// registers that start at +0. Every row of every tile height runs this same chain, which is why a row's bits do not
// depend on the rows beside it (NUMERICS.md rule 7).
#pragma once

#include <cstdint>

namespace shoestring {

// Dwords of K in a block: 384 floats or 768 bf16. FP8's promotion interval (128 along K in the V3 report) nests in a
// block: an FP8 GEMM calls the same micro-kernels on each interval of a packed block, and TileOut multiplies the
// interval's sum by its two scales where it adds to what came before.
inline constexpr int64_t kGemmBlockDwords = 384;
// Not a multiple of a page and odd in cache lines, so that the rows of a tile fall into different cache sets.
inline constexpr int64_t kGemmRowStride = 400;
inline constexpr int kGemmMaxRows = 14;
inline constexpr int64_t kGemmColumnsTile = kGemmBlockDwords * 16;

// The small functions here are forced inline: level files use them too, and no shared copy may be compiled for one
// level.

// First row of tile t when `rows` are cut into `tiles` of nearly equal height, so that none is left with a single row.
[[gnu::always_inline]] inline int64_t TileStart(int64_t rows, int64_t tiles, int64_t t) { return rows * t / tiles; }

// Where one tile goes. The tile's sum, added to `earlier` if there is one, is put into f32 (added to it if add_f32), or
// rounded into bf16, or, when both are null, left in `partial` for the next block. `earlier`, f32 and partial may be
// the same memory. With row_scales and column_scales (FP8) the sum is fma(sum, row scale * column scale, earlier or
// +0).
struct TileOut {
  float* partial;
  int64_t partial_stride;
  const float* earlier;
  int64_t earlier_stride;
  float* f32;
  uint16_t* bf16;
  int64_t stride;  // of f32 or bf16
  bool add_f32;
  int columns;  // valid columns of the panel; the others are computed and dropped
  const float* row_scales;
  const float* column_scales;  // readable for a whole panel
  // The short accumulator needs the smallest normal numbers of A's and B's formats.
  float a_smallest, b_smallest;

  // The same, `row` rows down and `column` columns to the right.
  [[gnu::always_inline]] TileOut At(int64_t row, int64_t column) const {
    TileOut out = *this;
    if (partial != nullptr) out.partial += row * partial_stride + column;
    if (earlier != nullptr) out.earlier += row * earlier_stride + column;
    if (f32 != nullptr) out.f32 += row * stride + column;
    if (bf16 != nullptr) out.bf16 += row * stride + column;
    return out;
  }
};

// k in dwords, >= 1.
using MicroFn = void (*)(int64_t k, const float* a, const float* b, const TileOut& out);

enum TileLayout : int { kTileRows = 0, kTileColumns = 1 };

struct MicroTable {
  MicroFn at[2][3][kGemmMaxRows + 1];  // [TileLayout][panel width / 16][rows of the tile]
};

// Packing of one element type. Sources are row-major with `ld` elements a row; k counts elements; what lies beyond the
// valid part is filled with zeros.
struct PackTable {
  // [rows, k] -> rows tile.
  void (*rows)(const void* source, int64_t ld, int rows, int64_t k, float* tile);
  // [k, columns] -> panel of 16 * vectors columns.
  void (*panel)(const void* source, int64_t ld, int64_t k, int columns, int vectors, float* panel);
  // [k, rows] -> `tiles` columns tiles, `spacing` dwords apart, of nearly equal height: TileStart(rows, tiles, t). A
  // few at a time, so that whole cache lines of a source row are used. `readable` >= rows: elements of a row that
  // exist.
  void (*tiles)(const void* source, int64_t ld, int64_t k, int rows, int readable, int tiles, int64_t spacing,
                float* to);
  // [columns, k] -> panel of 16 * vectors columns.
  void (*panel_transposed)(const void* source, int64_t ld, int64_t k, int columns, int vectors, float* panel);
};

// How one level multiplies one element type.
struct GemmKernels {
  int rows;     // of a full tile, <= kGemmMaxRows
  int vectors;  // of 16 columns in a full panel: 1 or 2
  int k_step;   // elements in a dword: 1, or 2 where bf16 pairs are multiplied
  const MicroTable* micro;
  const PackTable* pack;

  int columns() const { return 16 * vectors; }
};

// The kernels of each level. A level that this machine lacks must not be run, only named.
struct LevelKernels {
  GemmKernels f32;
  GemmKernels bf16;
  // FP8 operands are decoded, without loss, into the dwords of `bf16`. Where these are pairs, a pair is packed the
  // other way round: vdpbf16ps adds the product of the upper halves first, and so every level adds in the order of k.
  const PackTable* e4m3;
  const PackTable* e5m2;
  // For Hopper's short accumulator they are decoded into floats; tiles as those of f32.
  const MicroTable* short_micro;
  const PackTable* e4m3_floats;
  const PackTable* e5m2_floats;
};
const LevelKernels& PortableGemmKernels();
const LevelKernels& Avx2GemmKernels();
const LevelKernels& Avx512GemmKernels();
const LevelKernels& Avx512Bf16GemmKernels();

}  // namespace shoestring
