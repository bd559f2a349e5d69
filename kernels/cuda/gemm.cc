// Runs matrix products: looks up (or, once a shape, makes) the plan, prepares operands in the stream's workspace,
// launches.
#include "kernels/cuda/gemm.h"

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <utility>

#include "base/log.h"
#include "kernels/cuda/gemm_config.h"
#include "kernels/cuda/gemm_library.h"
#include "kernels/cuda/gemm_transpose.h"
#include "kernels/cuda/grouped_gemm.h"

namespace shoestring {
namespace {

using cuda::ProductConfig;
using cuda::ProductDescription;
using cuda::ProductRoute;

struct Product {
  GemmLayout layout;
  Segments segments;
  Operand a, b;
  View c;  // of a grouped product by tokens: the first group's rows begin it
  int64_t c_group_rows = 0;
  bool accumulate = false;
  Fp8Accumulation how;
};

// All that a plan depends on.
using PlanKey = std::array<int64_t, 22>;
PlanKey KeyOf(const ProductDescription& d) {
  return {static_cast<int64_t>(d.layout),
          d.m,
          d.n,
          d.k,
          d.groups,
          static_cast<int64_t>(d.a_type),
          static_cast<int64_t>(d.b_type),
          static_cast<int64_t>(d.c_type),
          d.accumulate,
          d.a_tile.rows,
          d.a_tile.cols,
          d.b_tile.rows,
          d.b_tile.cols,
          d.how.interval,
          d.how.hopper,
          d.a_stride,
          d.b_stride,
          d.c_stride,
          d.a_alignment_bytes,
          d.b_alignment_bytes,
          d.c_alignment_bytes,
          0};
}

struct Plan {
  ProductDescription description;
  ProductConfig config;
  cuda::LibraryPlanPtr library;  // for that route
};

ConstView ScaleColumnsOf(const ConstView& scales, int64_t tile_cols, int64_t first, int64_t count) {
  return scales ? scales.Columns(first / tile_cols, (count + tile_cols - 1) / tile_cols) : scales;
}

Operand ColumnsOf(const Operand& x, int64_t first, int64_t count) {
  Operand part = x;
  part.values = x.values.Columns(first, count);
  if (x.quantised()) part.scales = ScaleColumnsOf(x.scales, x.tile.cols, first, count);
  return part;
}

// Columns [first, first + count) of c; not of an NT product, whose operands need no copies.
Product ColumnPart(const Product& p, int64_t first, int64_t count) {
  Product part = p;
  part.b = ColumnsOf(p.b, first, count);
  part.c = p.c.Columns(first, count);
  return part;
}

// Rows [first, first + count) of every group's c, of a product by tokens.
Product RowPart(const Product& p, int64_t first, int64_t count) {
  Product part = p;
  part.a = ColumnsOf(p.a, first, count);
  part.c = View(p.c.row_bytes(first), p.c.dtype, p.c.rows - first, p.c.cols, p.c.stride);
  return part;
}

const int32_t* OffsetsOf(const Product& p) {
  return p.segments.groups > 0 ? reinterpret_cast<const int32_t*>(p.segments.offsets.data) : nullptr;
}

const float* ScalesOf(const Operand& x) { return reinterpret_cast<const float*>(x.scales.data); }

}  // namespace

class CudaGemm::Impl {
 public:
  explicit Impl(const CudaContext& context) : context_(context) {
    options_.sm_count = context.sm_count;
    options_.workspace_bytes = context.workspace_bytes;
    options_.library_bytes = std::min(options_.library_bytes, context.workspace_bytes / 4 / 256 * 256);
  }

  void Run(CudaStream& stream, const Product& p) {
    const ProductDescription d = cuda::Describe(p.layout, p.segments, p.a, p.b, p.c, p.accumulate, p.how);
    Plan& plan = PlanOf(d, stream.workspace());
    if (const int64_t part = plan.config.split_n; part > 0) {
      Run(stream, ColumnPart(p, 0, part));
      return Run(stream, ColumnPart(p, part, d.n - part));
    }
    if (const int64_t part = plan.config.split_m; part > 0) {
      Run(stream, RowPart(p, 0, part));
      return Run(stream, RowPart(p, part, d.m - part));
    }
    switch (plan.config.route) {
      case ProductRoute::kNothing: return;
      case ProductRoute::kZero: return cuda::LaunchZero(d, p.c.data, stream.get());
      case ProductRoute::kLibrary: return RunLibrary(stream, p, plan);
      case ProductRoute::kTensorCores: return RunTensorCores(stream, p, plan);
      case ProductRoute::kPlain: return RunPlain(stream, p, plan);
    }
  }

 private:
  Plan& PlanOf(const ProductDescription& d, const void* workspace) {
    const PlanKey key = KeyOf(d);
    const auto known = plans_.find(key);
    if (known != plans_.end()) return known->second;
    Plan& plan = plans_[key];
    plan.description = d;
    plan.config = cuda::Configure(d, options_);
    if (plan.config.too_small) FailForSpace(plan);
    if (plan.config.split_n > 0 || plan.config.split_m > 0) return plan;
    std::string what;
    if (plan.config.route == ProductRoute::kLibrary) what = AskLibrary(d, workspace, plan);
    if (!plan.config.refusals.empty()) what += (what.empty() ? "" : "; ") + plan.config.refusals;
    LogInfo("matrix product " + cuda::ToString(d) + ": " + cuda::Name(plan.config.route) +
            (what.empty() ? "" : " (" + what + ")"));
    return plan;
  }

  // What the library chose, or why another route was taken.
  std::string AskLibrary(const ProductDescription& d, const void* workspace, Plan& plan) {
    if (library_ == nullptr) library_ = std::make_unique<cuda::GemmLibrary>();
    std::string why;
    plan.library = library_->Plan(d, plan.config, workspace, &why);
    if (plan.library != nullptr) return cuda::GemmLibrary::ToString(*plan.library);
    plan.config.route = plan.config.without_library;
    return "cuBLASLt: " + why;
  }

  [[noreturn]] static void FailForSpace(const Plan& plan) {
    internal::CheckFailed(__FILE__, __LINE__,
                          "matrix product " + cuda::ToString(plan.description) + " needs " +
                              std::to_string(plan.config.workspace.total_bytes()) +
                              " bytes of the stream's workspace, which is smaller (CudaBackendOptions)");
  }

  // Transposed copies of the codes, where the plan wants them.
  void CopyCodes(CudaStream& stream, const Product& p, const Plan& plan) const {
    const ProductDescription& d = plan.description;
    const auto transpose = [&](const Operand& x, bool stack, int64_t offset) {
      cuda::TransposeCall call;
      call.from = reinterpret_cast<const uint8_t*>(x.values.data);
      call.from_stride = x.values.stride;
      call.matrices = stack ? d.matrices() : 1;
      call.rows = x.values.rows / call.matrices;
      call.cols = x.values.cols;
      if (!stack) call.offsets = OffsetsOf(p);
      call.groups = d.groups;
      call.to = reinterpret_cast<uint8_t*>(stream.workspace() + offset);
      call.to_stride = plan.config.k_padded;
      cuda::LaunchTranspose(call, stream.get());
    };
    if (plan.config.transpose_a) transpose(p.a, /*stack=*/false, 0);
    if (plan.config.transpose_b) transpose(p.b, !d.by_tokens(), plan.config.workspace.b_codes_offset());
  }

  void RunLibrary(CudaStream& stream, const Product& p, Plan& plan) {
    const ProductDescription& d = plan.description;
    const cuda::ProductWorkspace& w = plan.config.workspace;
    std::byte* const workspace = stream.workspace();
    cuda::LibraryOperands o;
    o.a = plan.config.transpose_a ? workspace : p.a.values.data;
    o.b = plan.config.transpose_b ? workspace + w.b_codes_offset() : p.b.values.data;
    o.c = p.c.data;
    o.workspace = workspace + w.library_offset();
    if (d.fp8()) {
      CopyCodes(stream, p, plan);
      auto* const a_scales = reinterpret_cast<float*>(workspace + w.a_scales_offset());
      auto* const b_scales = reinterpret_cast<float*>(workspace + w.b_scales_offset());
      cuda::LaunchPackScales(ScalesOf(p.a), cuda::PackingOfA(d, p.a.scales.stride), a_scales, stream.get());
      cuda::LaunchPackScales(ScalesOf(p.b), cuda::PackingOfB(d, p.b.scales.stride), b_scales, stream.get());
      o.a_scales = a_scales;
      o.b_scales = b_scales;
    }
    library_->Run(*plan.library, o, stream.get());
  }

  static cuda::TileSource InPlace(const Operand& x, int64_t rows) {
    return {x.values.data, rows, x.values.cols, x.values.stride, {}};
  }

  void RunTensorCores(CudaStream& stream, const Product& p, const Plan& plan) const {
    const ProductDescription& d = plan.description;
    cuda::GroupedCall call;
    call.description = d;
    call.config = plan.config;
    call.offsets = OffsetsOf(p);
    call.c = p.c.data;
    call.c_group_rows = p.c_group_rows;
    call.a = InPlace(p.a, d.by_tokens() ? d.k : d.m);
    call.b = InPlace(p.b, p.b.values.rows);
    if (!d.fp8()) return cuda::LaunchGroupedBF16(call, stream.get());
    CopyCodes(stream, p, plan);
    const int64_t k_padded = plan.config.k_padded;
    std::byte* const b_codes = stream.workspace() + plan.config.workspace.b_codes_offset();
    const int64_t b_rows = d.by_tokens() ? d.n : d.matrices() * d.n;
    // Copies by tokens have columns of no segment, which are not read; those of a stack end with k.
    if (plan.config.transpose_a) call.a = {stream.workspace(), d.m, k_padded, k_padded, {}};
    if (plan.config.transpose_b) call.b = {b_codes, b_rows, k_padded, k_padded, {}};
    call.a.scales = {ScalesOf(p.a), cuda::StridesOfA(d, p.a.scales.stride)};
    call.b.scales = {ScalesOf(p.b), cuda::StridesOfB(d, p.b.scales.stride)};
    cuda::LaunchGroupedFp8(call, stream.get());
  }

  static void RunPlain(CudaStream& stream, const Product& p, const Plan& plan) {
    cuda::PlainCall call;
    call.description = plan.description;
    call.grid = plan.config.grid;
    call.offsets = OffsetsOf(p);
    call.a = p.a.values.data;
    call.b = p.b.values.data;
    call.c = p.c.data;
    call.a_scales = ScalesOf(p.a);
    call.b_scales = ScalesOf(p.b);
    call.a_scales_stride = p.a.scales.stride;
    call.b_scales_stride = p.b.scales.stride;
    cuda::LaunchGroupedPlain(call, stream.get());
  }

  const CudaContext& context_;
  cuda::ProductOptions options_;
  std::unique_ptr<cuda::GemmLibrary> library_;
  std::map<PlanKey, Plan> plans_;
};

CudaGemm::CudaGemm(const CudaContext& context) : impl_(std::make_unique<Impl>(context)) {}
CudaGemm::~CudaGemm() = default;

void CudaGemm::Run(CudaStream& stream, GemmLayout layout, const Operand& a, const Operand& b, const View& c,
                   bool accumulate, const Fp8Accumulation& how) {
  impl_->Run(stream, {layout, {}, a, b, c, 0, accumulate, how});
}

void CudaGemm::RunGrouped(CudaStream& stream, GemmLayout layout, const Segments& segments, const Operand& a,
                          const Operand& b, const View& c, bool accumulate, const Fp8Accumulation& how) {
  impl_->Run(stream, {layout, segments, a, b, c, a.values.cols, accumulate, how});
}

}  // namespace shoestring
