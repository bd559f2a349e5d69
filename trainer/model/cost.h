// What a layer costs for one micro-batch, declared beside the layer that does the work.
#pragma once

#include <cstdint>

namespace shoestring {

// Matrix products count 2*M*N*K, as Backend::work does; the attention core half of the full rectangle (causal).
struct OperationCost {
  int64_t forward_gemm_flops = 0;
  int64_t input_gradient_gemm_flops = 0;  // recomputed products included
  int64_t weight_gradient_gemm_flops = 0;
  int64_t forward_attention_flops = 0;
  int64_t input_gradient_attention_flops = 0;
  int64_t saved_bytes = 0;    // kActivations, a live micro-batch; allocations rounded up to 64 bytes
  int64_t pending_bytes = 0;  // kPending, between input and weight gradient
  // Rows that travel, were every row to leave its rank; scales and gate weights included.
  int64_t dispatch_bytes = 0;           // tokens to experts
  int64_t combine_bytes = 0;            // results back
  int64_t combine_backward_bytes = 0;   // gradients of results to experts
  int64_t dispatch_backward_bytes = 0;  // gradients of tokens back

  OperationCost& operator+=(const OperationCost& other) {
    forward_gemm_flops += other.forward_gemm_flops;
    input_gradient_gemm_flops += other.input_gradient_gemm_flops;
    weight_gradient_gemm_flops += other.weight_gradient_gemm_flops;
    forward_attention_flops += other.forward_attention_flops;
    input_gradient_attention_flops += other.input_gradient_attention_flops;
    saved_bytes += other.saved_bytes;
    pending_bytes += other.pending_bytes;
    dispatch_bytes += other.dispatch_bytes;
    combine_bytes += other.combine_bytes;
    combine_backward_bytes += other.combine_backward_bytes;
    dispatch_backward_bytes += other.dispatch_backward_bytes;
    return *this;
  }
};

// One product of all three: y = x W^T forward, dx = dy W, dW += dy^T x.
inline void AddLinear(OperationCost& cost, int64_t rows, int64_t outputs, int64_t inputs) {
  const int64_t flops = 2 * rows * outputs * inputs;
  cost.forward_gemm_flops += flops;
  cost.input_gradient_gemm_flops += flops;
  cost.weight_gradient_gemm_flops += flops;
}

}  // namespace shoestring
