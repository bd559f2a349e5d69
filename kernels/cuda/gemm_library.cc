// Describes products to cuBLASLt, keeps what its heuristic chose, and runs it.
#include "kernels/cuda/gemm_library.h"

#include <array>
#include <sstream>

#include "base/check.h"

#define CUBLAS_CHECK(expression)                                                                                     \
  do {                                                                                                               \
    if (const cublasStatus_t status_ = (expression); status_ != CUBLAS_STATUS_SUCCESS) {                             \
      ::shoestring::internal::CheckFailed(                                                                           \
          __FILE__, __LINE__,                                                                                        \
          std::string(#expression ": ") + cublasLtGetStatusName(status_) + ": " + cublasLtGetStatusString(status_)); \
    }                                                                                                                \
  } while (false)

namespace shoestring::cuda {
namespace {

cudaDataType_t TypeOf(DType dtype) {
  switch (dtype) {
    case DType::kF32: return CUDA_R_32F;
    case DType::kBF16: return CUDA_R_16BF;
    case DType::kE4M3: return CUDA_R_8F_E4M3;
    case DType::kE5M2: return CUDA_R_8F_E5M2;
    default: CHECK(false);
  }
  return CUDA_R_32F;
}

// The library's matrices are stored by columns: [rows, cols] with `stride` from column to column.
cublasLtMatrixLayout_t MakeLayout(DType dtype, int64_t rows, int64_t cols, int64_t stride) {
  cublasLtMatrixLayout_t layout = nullptr;
  CUBLAS_CHECK(cublasLtMatrixLayoutCreate(&layout, TypeOf(dtype), static_cast<uint64_t>(rows),
                                          static_cast<uint64_t>(cols), stride));
  return layout;
}

template <typename T>
void Set(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  CUBLAS_CHECK(cublasLtMatmulDescSetAttribute(desc, attribute, &value, sizeof(value)));
}
template <typename T>
void Set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
  CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)));
}

int AlgorithmSetting(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t attribute) {
  std::array<char, 8> value = {};
  size_t written = 0;
  const size_t size = attribute == CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID ? 2 : 4;
  if (cublasLtMatmulAlgoConfigGetAttribute(&algorithm, attribute, value.data(), size, &written) !=
      CUBLAS_STATUS_SUCCESS) {
    return -1;
  }
  return static_cast<unsigned char>(value[0]) | static_cast<unsigned char>(value[1]) << 8;
}

}  // namespace

class LibraryPlan {
 public:
  LibraryPlan(const ProductDescription& d, const ProductConfig& config) : accumulate(d.accumulate) {
    CUBLAS_CHECK(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const bool along_k = d.fp8();  // both operands, by transposed copies if need be
    const cublasOperation_t first = along_k || d.layout == GemmLayout::kNT ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t second = !along_k && d.layout == GemmLayout::kTN ? CUBLAS_OP_T : CUBLAS_OP_N;
    Set(desc, CUBLASLT_MATMUL_DESC_TRANSA, first);
    Set(desc, CUBLASLT_MATMUL_DESC_TRANSB, second);
    k = d.fp8() && d.by_tokens() ? config.k_padded : d.k;
    const int64_t b_stride = config.transpose_b ? config.k_padded : d.b_stride;
    const int64_t a_stride = config.transpose_a ? config.k_padded : d.a_stride;
    b_layout = first == CUBLAS_OP_T ? MakeLayout(d.b_type, k, d.n, b_stride) : MakeLayout(d.b_type, d.n, k, b_stride);
    a_layout = second == CUBLAS_OP_T ? MakeLayout(d.a_type, d.m, k, a_stride) : MakeLayout(d.a_type, k, d.m, a_stride);
    c_layout = MakeLayout(d.c_type, d.n, d.m, d.c_stride);
    if (!d.fp8()) return;
    const int32_t vector = CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F;
    const int32_t block = CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F;
    Set(desc, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, d.by_tokens() ? vector : block);
    Set(desc, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, vector);
    Set(desc, CUBLASLT_MATMUL_DESC_FAST_ACCUM, int8_t{0});
  }
  void SetScales(const void* a_scales, const void* b_scales) {
    Set(desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, b_scales);
    Set(desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, a_scales);
  }
  ~LibraryPlan() {
    for (cublasLtMatrixLayout_t layout : {a_layout, b_layout, c_layout}) cublasLtMatrixLayoutDestroy(layout);
    cublasLtMatmulDescDestroy(desc);
  }
  LibraryPlan(const LibraryPlan&) = delete;
  LibraryPlan& operator=(const LibraryPlan&) = delete;

  bool accumulate;
  int64_t k = 0;
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t a_layout = nullptr, b_layout = nullptr, c_layout = nullptr;
  cublasLtMatmulHeuristicResult_t chosen = {};
  int64_t workspace_bytes = 0;
};

void LibraryPlanDeleter::operator()(LibraryPlan* plan) const { delete plan; }

GemmLibrary::GemmLibrary() { CUBLAS_CHECK(cublasLtCreate(&handle_)); }
GemmLibrary::~GemmLibrary() { cublasLtDestroy(handle_); }

LibraryPlanPtr GemmLibrary::Plan(const ProductDescription& d, const ProductConfig& config, const void* workspace,
                                 std::string* why) {
  LibraryPlanPtr plan(new LibraryPlan(d, config));
  if (d.fp8()) plan->SetScales(workspace, workspace);
  plan->workspace_bytes = config.workspace.library_bytes;
  cublasLtMatmulPreference_t preference = nullptr;
  CUBLAS_CHECK(cublasLtMatmulPreferenceCreate(&preference));
  Set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(config.workspace.library_bytes));
  // Sums of parts are added in the workspace, in order: the same bits each time.
  Set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  const uint32_t copied = 256;
  Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
      config.transpose_b ? copied : static_cast<uint32_t>(d.b_alignment_bytes));
  Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
      config.transpose_a ? copied : static_cast<uint32_t>(d.a_alignment_bytes));
  Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<uint32_t>(d.c_alignment_bytes));
  Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<uint32_t>(d.c_alignment_bytes));
  int found = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle_, plan->desc, plan->b_layout, plan->a_layout, plan->c_layout,
                                     plan->c_layout, preference, 1, &plan->chosen, &found);
  cublasLtMatmulPreferenceDestroy(preference);
  if (status == CUBLAS_STATUS_SUCCESS && found > 0 && plan->chosen.state == CUBLAS_STATUS_SUCCESS) return plan;
  // Anything else than "not supported" is a broken machine or a mistake of ours.
  if (status != CUBLAS_STATUS_NOT_SUPPORTED) CUBLAS_CHECK(status);
  *why = status == CUBLAS_STATUS_NOT_SUPPORTED ? cublasLtGetStatusName(status) : "no algorithm";
  return nullptr;
}

std::string GemmLibrary::ToString(const LibraryPlan& plan) {
  const auto setting = [&](cublasLtMatmulAlgoConfigAttributes_t which) {
    return AlgorithmSetting(plan.chosen.algo, which);
  };
  std::ostringstream out;
  out << "algorithm " << setting(CUBLASLT_ALGO_CONFIG_ID) << " tile " << setting(CUBLASLT_ALGO_CONFIG_TILE_ID)
      << " stages " << setting(CUBLASLT_ALGO_CONFIG_STAGES_ID) << " split " << setting(CUBLASLT_ALGO_CONFIG_SPLITK_NUM)
      << " cluster " << setting(CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID) << " workspace " << plan.chosen.workspaceSize;
  return out.str();
}

void GemmLibrary::Run(LibraryPlan& plan, const LibraryOperands& o, cudaStream_t stream) {
  if (o.a_scales != nullptr) plan.SetScales(o.a_scales, o.b_scales);
  const float one = 1, old = plan.accumulate ? 1.0f : 0.0f;
  CUBLAS_CHECK(cublasLtMatmul(handle_, plan.desc, &one, o.b, plan.b_layout, o.a, plan.a_layout, &old, o.c,
                              plan.c_layout, o.c, plan.c_layout, &plan.chosen.algo, o.workspace,
                              static_cast<size_t>(plan.workspace_bytes), stream));
}

}  // namespace shoestring::cuda
