// Builds and runs cuDNN's fused attention graphs.
#include "kernels/cuda/attention_cudnn.h"

#include <cudnn_frontend.h>
#include <dlfcn.h>

#include <unordered_map>
#include <utility>
#include <vector>

#include "base/check.h"

// The frontend reaches cuDNN and the driver through this handle and dlsym (NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING): so
// nothing links to libcuda. It is set once, when CUDA and cuDNN are known to be there.
void* cudnn_frontend::cudnn_dlhandle = nullptr;  // tidy: the frontend's own global

namespace shoestring::cuda {
namespace {

namespace fe = cudnn_frontend;

enum Tensor : int64_t { kQ = 1, kK, kV, kOut, kStats, kDOut, kDQ, kDK, kDV };

void CheckGood(fe::error_t error, const char* what) {
  if (error.is_good()) return;
  internal::CheckFailed(__FILE__, __LINE__, std::string(what) + ": " + error.get_message());
}

// A tensor [sequences, H, S, dim] whose rows are tokens.
fe::graph::Tensor_attributes Attributes(const char* name, Tensor uid, const AttentionShape& s, int64_t dim,
                                        int64_t row_stride, int64_t head_stride) {
  return fe::graph::Tensor_attributes()
      .set_name(name)
      .set_uid(uid)
      .set_dim({s.tokens / s.sequence_length, s.heads, s.sequence_length, dim})
      .set_stride({s.sequence_length * row_stride, head_stride, row_stride, 1})
      .set_data_type(fe::DataType_t::BFLOAT16);
}

std::vector<int64_t> StatsDims(const AttentionShape& s) {
  return {s.tokens / s.sequence_length, s.heads, s.sequence_length, 1};
}
std::vector<int64_t> StatsStrides(const AttentionShape& s) {
  return {s.heads * s.sequence_length, s.sequence_length, 1, 1};
}

int64_t KeyDim(const AttentionShape& s) { return s.nope_dim + s.rope_dim; }

struct Inputs {
  std::shared_ptr<fe::graph::Tensor_attributes> q, k, v;
};

Inputs AddInputs(fe::graph::Graph& graph, const AttentionShape& s, const AttentionLayout& layout) {
  const int64_t dim = KeyDim(s);
  return {graph.tensor(Attributes("q", kQ, s, dim, layout.q_stride, dim)),
          graph.tensor(Attributes("k", kK, s, dim, s.heads * dim, dim)),
          graph.tensor(Attributes("v", kV, s, s.value_dim, layout.kv_stride, s.nope_dim + s.value_dim))};
}

void SetOutput(const std::shared_ptr<fe::graph::Tensor_attributes>& tensor, Tensor uid, const AttentionShape& s,
               int64_t dim, int64_t row_stride, int64_t head_stride) {
  const fe::graph::Tensor_attributes like = Attributes("", uid, s, dim, row_stride, head_stride);
  tensor->set_output(true)
      .set_uid(uid)
      .set_dim(like.get_dim())
      .set_stride(like.get_stride())
      .set_data_type(fe::DataType_t::BFLOAT16);
}

void BuildForward(fe::graph::Graph& graph, const AttentionShape& s, const AttentionLayout& layout, float scale) {
  const Inputs in = AddInputs(graph, s, layout);
  auto options = fe::graph::SDPA_attributes()
                     .set_name("attention")
                     .set_generate_stats(true)
                     .set_attn_scale(scale)
                     .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
                     .set_diagonal_band_right_bound(0);
  auto [out, stats] = graph.sdpa(in.q, in.k, in.v, options);
  SetOutput(out, kOut, s, s.value_dim, layout.out_stride, s.value_dim);
  stats->set_output(true)
      .set_uid(kStats)
      .set_dim(StatsDims(s))
      .set_stride(StatsStrides(s))
      .set_data_type(fe::DataType_t::FLOAT);
}

void BuildBackward(fe::graph::Graph& graph, const AttentionShape& s, const AttentionLayout& layout, float scale,
                   bool deterministic) {
  const Inputs in = AddInputs(graph, s, layout);
  const auto out = graph.tensor(Attributes("out", kOut, s, s.value_dim, layout.out_stride, s.value_dim));
  const auto d_out = graph.tensor(Attributes("d_out", kDOut, s, s.value_dim, layout.d_out_stride, s.value_dim));
  const auto stats = graph.tensor(fe::graph::Tensor_attributes()
                                      .set_name("stats")
                                      .set_uid(kStats)
                                      .set_dim(StatsDims(s))
                                      .set_stride(StatsStrides(s))
                                      .set_data_type(fe::DataType_t::FLOAT));
  auto options = fe::graph::SDPA_backward_attributes()
                     .set_name("attention_backward")
                     .set_attn_scale(scale)
                     .set_deterministic_algorithm(deterministic)
                     .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
                     .set_diagonal_band_right_bound(0);
  auto [d_q, d_k, d_v] = graph.sdpa_backward(in.q, in.k, in.v, out, d_out, stats, options);
  const int64_t dim = KeyDim(s);
  SetOutput(d_q, kDQ, s, dim, layout.d_q_stride, dim);
  SetOutput(d_k, kDK, s, dim, s.heads * dim, dim);
  SetOutput(d_v, kDV, s, s.value_dim, layout.d_kv_stride, s.nope_dim + s.value_dim);
}

char* PartOf(const AttentionCall& call, int64_t offset) { return static_cast<char*>(call.workspace) + offset; }

// A head's values, behind its key part.
void* ValuesOf(const void* kv, const AttentionShape& s) {
  return const_cast<uint16_t*>(static_cast<const uint16_t*>(kv)) + s.nope_dim;
}

}  // namespace

class CudnnPlan {
 public:
  fe::graph::Graph graph;
  int64_t workspace_bytes = 0;
};

void CudnnPlanDeleter::operator()(CudnnPlan* plan) const { delete plan; }

class CudnnAttention::Handle {
 public:
  Handle() {
    cudnn_frontend::cudnn_dlhandle = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_NOLOAD);
    CHECK(cudnn_frontend::cudnn_dlhandle != nullptr);  // the module itself links to it
    const cudnnStatus_t status = cudnnCreate(&handle_);
    if (status != CUDNN_STATUS_SUCCESS) {
      internal::CheckFailed(__FILE__, __LINE__, std::string("cudnnCreate: ") + cudnnGetErrorString(status));
    }
  }
  ~Handle() { cudnnDestroy(handle_); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  cudnnHandle_t on(cudaStream_t stream) {
    const cudnnStatus_t status = cudnnSetStream(handle_, stream);
    CHECK(status == CUDNN_STATUS_SUCCESS);
    return handle_;
  }
  cudnnHandle_t get() const { return handle_; }

 private:
  cudnnHandle_t handle_ = nullptr;
};

CudnnAttention::CudnnAttention() = default;
CudnnAttention::~CudnnAttention() = default;

CudnnPlanPtr CudnnAttention::Plan(const AttentionShape& shape, const AttentionLayout& layout, float scale,
                                  bool backward, bool deterministic, std::string* why) {
  if (handle_ == nullptr) handle_ = std::make_unique<Handle>();
  CudnnPlanPtr plan(new CudnnPlan);
  try {
    plan->graph.set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    if (backward) {
      BuildBackward(plan->graph, shape, layout, scale, deterministic);
    } else {
      BuildForward(plan->graph, shape, layout, scale);
    }
    fe::error_t error = plan->graph.build(handle_->get(), {fe::HeurMode_t::A});
    if (error.is_bad()) {
      *why = error.get_message();
      return nullptr;
    }
    CheckGood(plan->graph.get_workspace_size(plan->workspace_bytes), "cuDNN's workspace");
  } catch (const std::exception& e) {  // the frontend throws where the driver is missing
    *why = e.what();
    return nullptr;
  }
  return plan;
}

int64_t CudnnAttention::WorkspaceBytes(const CudnnPlan& plan) { return plan.workspace_bytes; }

void CudnnAttention::Forward(CudnnPlan& plan, const AttentionCall& call, const CudnnWorkspace& parts,
                             cudaStream_t stream) {
  void* const keys = call.workspace;
  auto* const stats = reinterpret_cast<float*>(PartOf(call, parts.stats_offset()));
  LaunchPackKeys(call, keys, stream);
  std::unordered_map<int64_t, void*> pack = {{kQ, const_cast<void*>(call.q)},
                                             {kK, keys},
                                             {kV, ValuesOf(call.kv, call.shape)},
                                             {kOut, call.out},
                                             {kStats, stats}};
  CheckGood(plan.graph.execute(handle_->on(stream), pack, PartOf(call, parts.library_offset())), "attention by cuDNN");
  LaunchUnpackStats(call, stats, stream);
}

void CudnnAttention::Backward(CudnnPlan& plan, const AttentionCall& call, const CudnnWorkspace& parts,
                              cudaStream_t stream) {
  void* const keys = call.workspace;
  void* const key_gradients = PartOf(call, parts.key_gradients_offset());
  auto* const stats = reinterpret_cast<float*>(PartOf(call, parts.stats_offset()));
  LaunchPackKeys(call, keys, stream);
  LaunchPackStats(call, stats, stream);
  std::unordered_map<int64_t, void*> pack = {{kQ, const_cast<void*>(call.q)},
                                             {kK, keys},
                                             {kV, ValuesOf(call.kv, call.shape)},
                                             {kOut, call.out},
                                             {kStats, stats},
                                             {kDOut, const_cast<void*>(call.d_out)},
                                             {kDQ, call.d_q},
                                             {kDK, key_gradients},
                                             {kDV, ValuesOf(call.d_kv, call.shape)}};
  CheckGood(plan.graph.execute(handle_->on(stream), pack, PartOf(call, parts.library_offset())),
            "backward of attention by cuDNN");
  LaunchUnpackKeyGradients(call, key_gradients, stream);
}

}  // namespace shoestring::cuda
