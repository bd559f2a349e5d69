// Chooses the route, tiles, shared memory, grid and workspace of a matrix product.
#include "kernels/cuda/gemm_config.h"

#include <algorithm>
#include <sstream>

#include "base/check.h"

namespace shoestring::cuda {
namespace {

constexpr int64_t kMaxAlignment = 256;
constexpr int kMaxStages = 6;  // leaves the first-level cache some room for scales

// The module calls no library of ours but what the executable has, and Abseil is there by chance only.
template <typename... Parts>
std::string Concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t RoundUp(int64_t a, int64_t b) { return CeilDiv(a, b) * b; }

int64_t AlignmentOf(const void* p) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  if (address == 0) return kMaxAlignment;
  return std::min<int64_t>(kMaxAlignment, static_cast<int64_t>(address & (~address + 1)));
}

const char* LayoutName(GemmLayout layout) {
  return layout == GemmLayout::kNT ? "NT" : layout == GemmLayout::kNN ? "NN" : "TN";
}

bool Is(const Tile& tile, int64_t rows, int64_t cols) { return tile.rows == rows && tile.cols == cols; }

// Empty, or what differs from the tiles and the interval of the V3 report.
std::string RecipeRefusal(const ProductDescription& d) {
  const bool tokens = d.by_tokens();
  const bool a_fits = tokens ? Is(d.a_tile, kFp8Interval, 1) : Is(d.a_tile, 1, kFp8Interval);
  const bool b_fits = tokens ? Is(d.b_tile, kFp8Interval, 1) : Is(d.b_tile, kFp8Interval, kFp8Interval);
  if (!a_fits || !b_fits) {
    return Concat("tiles ", d.a_tile.rows, "x", d.a_tile.cols, " and ", d.b_tile.rows, "x", d.b_tile.cols,
                  tokens ? " are not 128x1 and 128x1" : " are not 1x128 and 128x128");
  }
  if (d.how.interval != kFp8Interval) return Concat("promotion interval ", d.how.interval, " is not 128");
  return "";
}

// What the bulk copy engine asks of a matrix that it reads in place.
std::string CopyRefusal(const char* name, DType type, int64_t stride, int64_t alignment_bytes) {
  if (BytesOf(type, stride) % 16 != 0) return Concat(name, "'s rows are not a multiple of 16 bytes apart");
  if (alignment_bytes < 16) return Concat(name, " does not begin at a multiple of 16 bytes");
  return "";
}

void SetCopies(const ProductDescription& d, ProductConfig* config) {
  if (!d.fp8()) return;
  config->transpose_a = d.layout == GemmLayout::kTN;
  config->transpose_b = d.layout != GemmLayout::kNT;
  config->k_padded = d.by_tokens() ? PaddedTokens(d.k, d.groups) : RoundUp(d.k, kFp8Interval);
  ProductWorkspace& w = config->workspace;
  if (config->transpose_a) w.a_codes_bytes = d.m * config->k_padded;
  if (config->transpose_b) w.b_codes_bytes = (d.by_tokens() ? 1 : d.matrices()) * d.n * config->k_padded;
}

void SetLibraryParts(const ProductDescription& d, const ProductOptions& options, ProductConfig* config) {
  ProductWorkspace& w = config->workspace;
  w.library_bytes = options.library_bytes;
  if (!d.fp8()) return;
  w.a_scales_bytes = VectorScaleLayout(d.m, d.k).elements() * 4;
  w.b_scales_bytes = (d.by_tokens() ? VectorScaleLayout(d.n, d.k) : BlockScaleLayout(d.n, d.k)).elements() * 4;
}

int64_t TilesAtMost(const ProductDescription& d, int64_t block_m, int64_t block_n) {
  const int64_t n_tiles = CeilDiv(d.n, block_n);
  if (d.groups == 0) return CeilDiv(d.m, block_m) * n_tiles;
  if (d.by_tokens()) return d.groups * CeilDiv(d.m, block_m) * n_tiles;
  return (d.m / block_m + d.groups) * n_tiles;
}

void SetGrid(const ProductDescription& d, const ProductOptions& options, ProductConfig* config) {
  const bool plain = config->without_library == ProductRoute::kPlain;
  const int64_t tiles = plain ? TilesAtMost(d, kPlainBlock, kPlainBlock) : TilesAtMost(d, kBlockM, kBlockN);
  // Kernels count tiles, rows and columns in 32 bits.
  for (const int64_t extent : {tiles, d.matrices() * d.n, d.matrices() * d.m, d.matrices() * d.k, config->k_padded}) {
    CHECK_LT(extent, int64_t{1} << 31);
  }
  config->grid = std::min<int64_t>(plain ? options.sm_count * 8 : options.sm_count, tiles);
  if (!plain) config->stages = StagesOf(d.fp8());
}

// Half of an extent, on whole tiles; 0 if it is one tile already.
int64_t HalfOf(int64_t extent) {
  constexpr int64_t kUnit = 128;
  return extent <= kUnit ? 0 : RoundUp(extent / 2, kUnit);
}

void SetSplit(const ProductDescription& d, const ProductOptions& options, ProductConfig* config) {
  if (config->workspace.total_bytes() <= options.workspace_bytes) return;
  if (d.by_tokens() && d.m >= d.n) config->split_m = HalfOf(d.m);
  if (config->split_m == 0 && d.layout != GemmLayout::kNT) config->split_n = HalfOf(d.n);
  config->too_small = config->split_m == 0 && config->split_n == 0;
}

}  // namespace

ScalePacking PackingOfA(const ProductDescription& d, int64_t stride) {
  // Stored with a row a token, blocks of k inside; or, by tokens, with blocks of k outside already.
  return {VectorScaleLayout(d.m, d.k), d.by_tokens() ? stride : 1, d.by_tokens() ? 1 : stride};
}

ScalePacking PackingOfB(const ProductDescription& d, int64_t stride) {
  if (d.by_tokens()) return {VectorScaleLayout(d.n, d.k), stride, 1};
  const bool down = d.layout == GemmLayout::kNN;  // blocks of k run down
  return {BlockScaleLayout(d.n, d.k), down ? 1 : stride, down ? stride : 1};
}

ScaleStrides StridesOfA(const ProductDescription& d, int64_t stride) {
  return d.by_tokens() ? ScaleStrides{0, 1, stride} : ScaleStrides{0, stride, 1};
}

ScaleStrides StridesOfB(const ProductDescription& d, int64_t stride) {
  const int64_t each = ScaleRows(d.b_tile, d.layout == GemmLayout::kNT ? d.n : d.k);  // rows of one matrix's scales
  switch (d.layout) {
    case GemmLayout::kNT: return {each * stride, stride, 1};
    case GemmLayout::kNN: return {each * stride, 1, stride};
    case GemmLayout::kTN: return {0, 1, stride};
  }
  return {};
}

ProductDescription Describe(GemmLayout layout, const Segments& segments, const Operand& a, const Operand& b,
                            const View& c, bool accumulate, const Fp8Accumulation& how) {
  ProductDescription d;
  const bool grouped = segments.groups > 0;
  d.layout = layout;
  d.groups = segments.groups;
  d.m = layout == GemmLayout::kTN ? a.values.cols : a.values.rows;
  d.k = layout == GemmLayout::kTN ? a.values.rows : a.values.cols;
  d.n = layout == GemmLayout::kNT ? b.values.rows / d.matrices() : b.values.cols;
  if (grouped) (layout == GemmLayout::kTN ? d.k : d.m) = segments.max_rows;
  d.a_type = a.values.dtype, d.b_type = b.values.dtype, d.c_type = c.dtype;
  d.accumulate = accumulate;
  d.a_tile = a.tile, d.b_tile = b.tile;
  d.how = how;
  d.a_stride = a.values.stride, d.b_stride = b.values.stride, d.c_stride = c.stride;
  d.a_alignment_bytes = AlignmentOf(a.values.data);
  d.b_alignment_bytes = AlignmentOf(b.values.data);
  d.c_alignment_bytes = AlignmentOf(c.data);
  return d;
}

std::string ToString(const ProductDescription& d) {
  return Concat(LayoutName(d.layout), " m ", d.m, " n ", d.n, " k ", d.k,
                d.groups > 0 ? Concat(" groups ", d.groups) : "", " ", Name(d.a_type), " x ", Name(d.b_type),
                d.accumulate ? " +> " : " -> ", Name(d.c_type));
}

const char* Name(ProductRoute route) {
  switch (route) {
    case ProductRoute::kNothing: return "nothing";
    case ProductRoute::kZero: return "zero";
    case ProductRoute::kLibrary: return "cuBLASLt";
    case ProductRoute::kTensorCores: return "wgmma";
    case ProductRoute::kPlain: return "plain";
  }
  CHECK(false);
  return "";
}

StageLayout StagesOf(bool fp8) {
  StageLayout layout;
  layout.a_bytes = int64_t{kBlockM} * kBlockBytesK;
  layout.b_bytes = int64_t{kBlockN} * kBlockBytesK;
  layout.scale_bytes = fp8 ? kBlockM * 4 : 0;
  layout.stages = kMaxStages;
  while (layout.shared_bytes() > kMaxSharedBytes) --layout.stages;
  return layout;
}

int64_t ProductWorkspace::b_codes_offset() const { return RoundUp(a_codes_bytes, kMaxAlignment); }
int64_t ProductWorkspace::a_scales_offset() const { return b_codes_offset() + RoundUp(b_codes_bytes, kMaxAlignment); }
int64_t ProductWorkspace::b_scales_offset() const { return a_scales_offset() + RoundUp(a_scales_bytes, kMaxAlignment); }
int64_t ProductWorkspace::library_offset() const { return b_scales_offset() + RoundUp(b_scales_bytes, kMaxAlignment); }
int64_t ProductWorkspace::total_bytes() const { return library_offset() + RoundUp(library_bytes, kMaxAlignment); }

std::string LibraryRefusal(const ProductDescription& d) {
  if (d.groups > 0) return "its grouped product wants the counts on the host";
  if (!d.fp8()) return "";
  if (std::string recipe = RecipeRefusal(d); !recipe.empty()) return recipe;
  if (d.a_type == DType::kE5M2 && d.b_type == DType::kE5M2) return "e5m2 x e5m2";
  // In the library's terms: its m is our n, its n our m, and every row of what it reads a multiple of 16 bytes long.
  if (d.n % 16 != 0) return Concat("n ", d.n, " is not a multiple of 16");
  if (d.m % 16 != 0) return Concat("m ", d.m, " is not a multiple of 16");
  if (!d.by_tokens()) {
    if (d.k % 16 != 0) return Concat("k ", d.k, " is not a multiple of 16");
    if (std::string a = CopyRefusal("a", d.a_type, d.a_stride, d.a_alignment_bytes); !a.empty()) return a;
  }
  if (d.layout == GemmLayout::kNT) {
    if (std::string b = CopyRefusal("b", d.b_type, d.b_stride, d.b_alignment_bytes); !b.empty()) return b;
  }
  return CopyRefusal("c", d.c_type, d.c_stride, d.c_alignment_bytes);
}

std::string TensorCoreRefusal(const ProductDescription& d) {
  if (d.a_type == DType::kF32) return "they would round f32 operands to TF32";
  if (d.fp8()) {
    if (std::string recipe = RecipeRefusal(d); !recipe.empty()) return recipe;
    if (d.b_type != DType::kE4M3) return "b is e5m2";
  }
  // Operands of FP8 that are read through a transposed copy may lie as they like.
  if (!(d.fp8() && d.layout == GemmLayout::kTN)) {
    if (std::string a = CopyRefusal("a", d.a_type, d.a_stride, d.a_alignment_bytes); !a.empty()) return a;
  }
  if (!(d.fp8() && d.layout != GemmLayout::kNT)) {
    if (std::string b = CopyRefusal("b", d.b_type, d.b_stride, d.b_alignment_bytes); !b.empty()) return b;
  }
  return "";
}

ProductConfig Configure(const ProductDescription& d, const ProductOptions& options) {
  ProductConfig config;
  if (d.m == 0 || d.n == 0) return config;
  if (d.k == 0) {
    if (d.accumulate) return config;
    config.route = config.without_library = ProductRoute::kZero;
    return config;
  }
  const std::string library = LibraryRefusal(d);
  const std::string cores = TensorCoreRefusal(d);
  config.without_library = cores.empty() ? ProductRoute::kTensorCores : ProductRoute::kPlain;
  config.route = library.empty() ? ProductRoute::kLibrary : config.without_library;
  if (!library.empty() && d.groups == 0) config.refusals = "cuBLASLt: " + library;
  if (!cores.empty() && config.route != ProductRoute::kLibrary) {
    config.refusals += (config.refusals.empty() ? "wgmma: " : "; wgmma: ") + cores;
  }
  if (config.route == ProductRoute::kLibrary) SetLibraryParts(d, options, &config);
  if (config.route == ProductRoute::kLibrary || config.without_library == ProductRoute::kTensorCores) {
    SetCopies(d, &config);
  }
  SetGrid(d, options, &config);
  SetSplit(d, options, &config);
  return config;
}

}  // namespace shoestring::cuda
