// The probe's item about cuBLASLt: which block-scaled FP8 products it accepts, and how fast the products of
// DeepSeek-V3's linears are in BF16 and FP8.
#include <cublasLt.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/gpu/probe/fill.h"
#include "tests/gpu/probe/report.h"

namespace shoestring::probe {
namespace {

enum class Kind {
  kBf16,        // both BF16
  kTensor,      // E4M3, one scale a tensor: the ceiling of FP8
  kTensorFast,  // the same with the short accumulator
  kRowByBlock,  // E4M3, activations 1x128 by weights 128x128: forward and input gradient
  kRowByRow,    // E4M3, 1x128 by 1x128: weight gradient
};
constexpr const char* kKindNames[] = {"bf16", "fp8 a tensor", "fp8 a tensor, fast accumulation", "fp8 1x128 by 128x128",
                                      "fp8 1x128 by 1x128"};

// d [m, n] = x [m, k] w [n, k]^T, all row-major. To cuBLASLt, which is column-major, that is w^T x with w transposed.
struct Product {
  Kind kind = Kind::kBf16;
  int64_t m = 0, n = 0, k = 0;
  bool f32_out = false;
  bool accumulate = false;
};

std::string Text(const Product& p) {
  return absl::StrCat(kKindNames[static_cast<int>(p.kind)], ", m ", p.m, " n ", p.n, " k ", p.k,
                      p.f32_out ? ", f32 out" : "", p.accumulate ? ", added to it" : "");
}

void Check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) throw Failure(absl::StrCat(what, ": ", cublasGetStatusString(status)));
}

int64_t RoundUp(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

// Handle, workspace and operands large enough for every product that is asked.
class Bench {
 public:
  Bench(int64_t x_elements, int64_t w_elements, int64_t d_elements)
      : x_(x_elements * 2),
        w_(w_elements * 2),
        d_(d_elements * 4),
        x_scales_(kScales * 4),
        w_scales_(kScales * 4),
        workspace_(kWorkspaceBytes) {
    Check(cublasLtCreate(&handle_), "cublasLtCreate");
    CheckCuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    FillScale(stream_, x_scales_.as<float>(), kScales, 3);
    FillScale(stream_, w_scales_.as<float>(), kScales, 4);
  }
  ~Bench() {
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
    cublasLtDestroy(handle_);
  }

  // Nothing: refused. Else its algorithms and, if `timed`, its rate.
  struct Result {
    int algorithms = 0;
    size_t workspace_bytes = 0;
    double ms = 0;
  };
  std::optional<Result> Run(const Product& product, bool timed) {
    Fill(product.kind != Kind::kBf16);
    Setup setup(*this, product);
    cublasLtMatmulHeuristicResult_t found[8];
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle_, setup.desc, setup.w, setup.x, setup.d,
                                                                 setup.d, setup.preference, 8, found, &count);
    if (status != CUBLAS_STATUS_SUCCESS || count == 0) return std::nullopt;
    Result result{.algorithms = count, .workspace_bytes = found[0].workspaceSize};
    const float alpha = 1, beta = product.accumulate ? 1 : 0;
    const auto enqueue = [&] {
      Check(cublasLtMatmul(handle_, setup.desc, &alpha, w_.as(), setup.w, x_.as(), setup.x, &beta, d_.as(), setup.d,
                           d_.as(), setup.d, &found[0].algo, workspace_.as(), kWorkspaceBytes, stream_),
            "cublasLtMatmul");
    };
    enqueue();
    CheckCuda(cudaStreamSynchronize(stream_), "the product");
    if (timed) result.ms = MedianMs(stream_, enqueue);
    return result;
  }

 private:
  static constexpr size_t kWorkspaceBytes = size_t{64} << 20;
  static constexpr int64_t kScales = int64_t{8} << 20;

  // What one product is called with.
  struct Setup {
    Setup(Bench& bench, const Product& p) {
      const bool fp8 = p.kind != Kind::kBf16;
      Check(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
      Set(CUBLASLT_MATMUL_DESC_TRANSA, static_cast<int32_t>(CUBLAS_OP_T));
      Set(CUBLASLT_MATMUL_DESC_TRANSB, static_cast<int32_t>(CUBLAS_OP_N));
      if (fp8) {
        Set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, static_cast<int8_t>(p.kind == Kind::kTensorFast));
        Set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, bench.w_scales_.as());
        Set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, bench.x_scales_.as());
      }
      if (p.kind == Kind::kRowByBlock || p.kind == Kind::kRowByRow) {
        Set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE,
            static_cast<int32_t>(p.kind == Kind::kRowByBlock ? CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F
                                                             : CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F));
        Set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, static_cast<int32_t>(CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F));
      }
      const cudaDataType_t in = fp8 ? CUDA_R_8F_E4M3 : CUDA_R_16BF;
      Check(cublasLtMatrixLayoutCreate(&w, in, p.k, p.n, p.k), "layout of w");
      Check(cublasLtMatrixLayoutCreate(&x, in, p.k, p.m, p.k), "layout of x");
      Check(cublasLtMatrixLayoutCreate(&d, p.f32_out ? CUDA_R_32F : CUDA_R_16BF, p.n, p.m, p.n), "layout of d");
      Check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
      const size_t workspace_bytes = kWorkspaceBytes;
      Check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
                                                 sizeof(workspace_bytes)),
            "workspace");
    }
    ~Setup() {
      cublasLtMatmulPreferenceDestroy(preference);
      cublasLtMatrixLayoutDestroy(w);
      cublasLtMatrixLayoutDestroy(x);
      cublasLtMatrixLayoutDestroy(d);
      cublasLtMatmulDescDestroy(desc);
    }
    template <typename T>
    void Set(cublasLtMatmulDescAttributes_t attribute, T value) {
      Check(cublasLtMatmulDescSetAttribute(desc, attribute, &value, sizeof(value)), "an attribute of the product");
    }
    cublasLtMatmulDesc_t desc = nullptr;
    cublasLtMatrixLayout_t w = nullptr, x = nullptr, d = nullptr;
    cublasLtMatmulPreference_t preference = nullptr;
  };

  void Fill(bool fp8) {
    if (filled_ && fp8 == filled_fp8_) return;
    filled_ = true;
    filled_fp8_ = fp8;
    if (fp8) {
      FillE4m3(stream_, x_.as(), x_.bytes(), 1);
      FillE4m3(stream_, w_.as(), w_.bytes(), 2);
    } else {
      FillBf16(stream_, x_.as(), x_.bytes() / 2, 1);
      FillBf16(stream_, w_.as(), w_.bytes() / 2, 2);
    }
    CheckCuda(cudaMemsetAsync(d_.as(), 0, d_.bytes(), stream_), "cudaMemsetAsync");
  }

  Buffer x_, w_, d_, x_scales_, w_scales_, workspace_;
  cublasLtHandle_t handle_ = nullptr;
  cudaStream_t stream_ = nullptr;
  bool filled_ = false, filled_fp8_ = false;
};

void AnswerOne(Bench& bench, const Product& product, const char* what, bool timed) {
  std::string answer;
  try {
    const std::optional<Bench::Result> result = bench.Run(product, timed);
    if (!result) {
      answer = "refused";
    } else if (timed) {
      answer = absl::StrFormat("%.0f TFLOP/s (%.3f ms; %d algorithms, workspace %d KiB)",
                               2e-9 * product.m * product.n * product.k / result->ms, result->ms, result->algorithms,
                               result->workspace_bytes >> 10);
    } else {
      answer = absl::StrCat("accepted, ", result->algorithms, " algorithms");
    }
  } catch (const Failure& failure) {
    answer = absl::StrCat("failed: ", failure.what());
  }
  Answer("cublaslt", absl::StrCat(what, what[0] == '\0' ? "" : ": ", Text(product)), answer);
}

// The linears of DeepSeek-V3 (technical report, section 4.2): output and input width.
struct Linear {
  const char* name;
  int64_t out, in;
};
constexpr Linear kLinears[] = {{"q_a and kv_a", 2112, 7168},
                               {"q_b", 24576, 1536},
                               {"kv_b", 32768, 512},
                               {"o", 7168, 16384},
                               {"dense gate and up", 36864, 7168},
                               {"dense down", 7168, 18432},
                               {"shared gate and up", 4096, 7168},
                               {"shared down", 7168, 2048}};
constexpr int64_t kTokens = 4096;  // one sequence

void ProbeRates(Bench& bench) {
  for (const Kind kind : {Kind::kBf16, Kind::kTensor, Kind::kTensorFast, Kind::kRowByBlock, Kind::kRowByRow}) {
    AnswerOne(bench, {.kind = kind, .m = 8192, .n = 8192, .k = 8192}, "ceiling", true);
  }
  for (const Linear& linear : kLinears) {
    AnswerOne(bench, {.kind = Kind::kBf16, .m = kTokens, .n = linear.out, .k = linear.in}, linear.name, true);
    AnswerOne(bench, {.kind = Kind::kRowByBlock, .m = kTokens, .n = linear.out, .k = linear.in}, linear.name, true);
    AnswerOne(bench, {.kind = Kind::kRowByBlock, .m = kTokens, .n = linear.in, .k = linear.out},
              absl::StrCat(linear.name, ", input gradient").c_str(), true);
    AnswerOne(
        bench,
        {.kind = Kind::kRowByRow, .m = linear.out, .n = linear.in, .k = kTokens, .f32_out = true, .accumulate = true},
        absl::StrCat(linear.name, ", weight gradient").c_str(), true);
  }
  AnswerOne(bench, {.kind = Kind::kBf16, .m = kTokens, .n = 129280, .k = 7168}, "head", true);
  AnswerOne(bench, {.kind = Kind::kBf16, .m = kTokens, .n = 256, .k = 7168, .f32_out = true}, "router", true);
}

// What is accepted beside multiples of 128.
void ProbeShapes(Bench& bench) {
  for (const Kind kind : {Kind::kRowByBlock, Kind::kRowByRow}) {
    for (const bool f32_out : {false, true}) {
      for (const bool accumulate : {false, true}) {
        AnswerOne(bench, {kind, 1024, 1024, 1024, f32_out, accumulate}, "output", false);
      }
    }
    for (const int64_t m : {1, 4, 8, 12, 16, 100, 136, 576}) AnswerOne(bench, {kind, m, 1024, 1024}, "rows", false);
    for (const int64_t n : {8, 16, 24, 100, 136, 576, 2112}) AnswerOne(bench, {kind, 1024, n, 1024}, "columns", false);
    for (const int64_t k : {16, 48, 64, 128, 136, 144, 192, 576})
      AnswerOne(bench, {kind, 1024, 1024, k}, "depth", false);
  }
}

}  // namespace

void ProbeCublasLt() {
  Bench bench(RoundUp(std::max<int64_t>(36864 * kTokens, 8192 * 8192), 1024), int64_t{129280} * 7168,
              std::max<int64_t>(kTokens * 129280, int64_t{36864} * 7168));
  ProbeRates(bench);
  ProbeShapes(bench);
}

}  // namespace shoestring::probe
