// Copies around each operation.
#include "tests/kernels/cuda/mirror_backend.h"

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "base/check.h"

namespace shoestring {
namespace {

// The operands of one call. Views that share bytes on the host, because one may be written over another, share them on
// the device. Rewrites the views it is given; copies back when it goes.
class Call {
 public:
  template <typename... Operands>
  Call(Backend& device, Stream& stream, Operands&... operands) : device_(device), stream_(stream) {
    (Add(operands), ...);
    Bring();
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call() {
    for (const Block& block : blocks_) {
      if (block.written) device_.CopyToHost(stream_, ConstView(block.on_device()), block.begin);
    }
    device_.Synchronize(stream_);
  }

 private:
  struct Block {
    std::byte* begin = nullptr;  // on the host
    std::byte* end = nullptr;
    bool written = false;
    std::unique_ptr<Memory> memory;
    View on_device() const { return {memory->data(), DType::kU8, 1, end - begin}; }
  };
  struct Place {
    std::byte* begin;
    std::byte* end;
    bool written;
    std::function<void(std::byte*)> move;
  };

  template <typename Byte>
  void Add(BasicView<Byte>& view) {
    if (view.data == nullptr || view.empty()) return;
    auto* const begin = const_cast<std::byte*>(view.data);
    const int64_t bytes = BytesOf(view.dtype, (view.rows - 1) * view.stride + view.cols);
    places_.push_back({begin, begin + bytes, !std::is_const_v<Byte>, [&view](std::byte* to) { view.data = to; }});
  }
  template <typename ViewType>
  void Add(BasicOperand<ViewType>& operand) {
    Add(operand.values);
    Add(operand.scales);
  }

  void Bring() {
    std::vector<const Place*> sorted;
    for (const Place& place : places_) sorted.push_back(&place);
    std::sort(sorted.begin(), sorted.end(), [](const Place* a, const Place* b) { return a->begin < b->begin; });
    for (const Place* place : sorted) {
      if (blocks_.empty() || place->begin >= blocks_.back().end)
        blocks_.push_back({place->begin, place->end, false, {}});
      Block& block = blocks_.back();
      block.end = std::max(block.end, place->end);
      block.written |= place->written;
    }
    for (Block& block : blocks_) {
      block.memory = device_.Allocate(block.end - block.begin);
      CHECK(block.memory != nullptr);
      device_.CopyFromHost(stream_, block.begin, block.on_device());
    }
    device_.Synchronize(stream_);
    for (const Place& place : places_) {
      const auto holds = [&](const Block& block) { return block.begin <= place.begin && place.end <= block.end; };
      const Block& block = *std::find_if(blocks_.begin(), blocks_.end(), holds);
      place.move(block.memory->data() + (place.begin - block.begin));
    }
  }

  Backend& device_;
  Stream& stream_;
  std::vector<Place> places_;
  std::vector<Block> blocks_;
};

}  // namespace

void MirrorBackend::DoZero(Stream& stream, View x) {
  const Call call(inner_, stream, x);
  inner_.Zero(stream, x);
}

void MirrorBackend::DoCopy(Stream& stream, ConstView x, View y) {
  const Call call(inner_, stream, x, y);
  inner_.Copy(stream, x, y);
}

void MirrorBackend::DoCopyToHost(Stream& stream, ConstView x, void* host) {
  const Call call(inner_, stream, x);
  inner_.CopyToHost(stream, x, host);
}

void MirrorBackend::DoCopyFromHost(Stream& stream, const void* host, View x) {
  const Call call(inner_, stream, x);
  inner_.CopyFromHost(stream, host, x);
}

void MirrorBackend::DoAdd(Stream& stream, ConstView a, ConstView b, View y) {
  const Call call(inner_, stream, a, b, y);
  inner_.Add(stream, a, b, y);
}

void MirrorBackend::DoQuantize(Stream& stream, const QuantizeArgs& args) {
  QuantizeArgs moved = args;
  const Call call(inner_, stream, moved.x, moved.y, moved.segments.offsets);
  inner_.Quantize(stream, moved);
}

void MirrorBackend::DoDequantize(Stream& stream, Operand x, View y, int64_t stack, ConstView offsets) {
  const Call call(inner_, stream, x, y, offsets);
  inner_.Dequantize(stream, x, y, stack, offsets);
}

void MirrorBackend::DoGemm(Stream& stream, GemmLayout layout, Operand a, Operand b, View c, bool accumulate,
                           const Fp8Accumulation& how) {
  const Call call(inner_, stream, a, b, c);
  inner_.Gemm(stream, layout, a, b, c, accumulate, how);
}

void MirrorBackend::DoGroupedGemm(Stream& stream, GemmLayout layout, const Segments& segments, Operand a, Operand b,
                                  View c, bool accumulate, const Fp8Accumulation& how) {
  Segments moved = segments;
  const Call call(inner_, stream, moved.offsets, a, b, c);
  inner_.GroupedGemm(stream, layout, moved, a, b, c, accumulate, how);
}

void MirrorBackend::DoRmsNorm(Stream& stream, const RmsNormArgs& args) {
  RmsNormArgs moved = args;
  const Call call(inner_, stream, moved.x, moved.delta, moved.sum, moved.gain, moved.y, moved.inverse_rms);
  inner_.RmsNorm(stream, moved);
}

void MirrorBackend::DoRmsNormBackwardInput(Stream& stream, const RmsNormBackwardInputArgs& args) {
  RmsNormBackwardInputArgs moved = args;
  const Call call(inner_, stream, moved.dy, moved.x, moved.gain, moved.inverse_rms, moved.add, moved.dx);
  inner_.RmsNormBackwardInput(stream, moved);
}

void MirrorBackend::DoRmsNormBackwardWeight(Stream& stream, const RmsNormBackwardWeightArgs& args) {
  RmsNormBackwardWeightArgs moved = args;
  const Call call(inner_, stream, moved.dy, moved.x, moved.inverse_rms, moved.d_gain);
  inner_.RmsNormBackwardWeight(stream, moved);
}

void MirrorBackend::DoRope(Stream& stream, const RopeArgs& args) {
  RopeArgs moved = args;
  const Call call(inner_, stream, moved.x, moved.cos_table, moved.sin_table, moved.positions);
  inner_.Rope(stream, moved);
}

void MirrorBackend::DoAttentionForward(Stream& stream, const AttentionArgs& args, View out, View log_sum_exp,
                                       View workspace) {
  AttentionArgs moved = args;
  const Call call(inner_, stream, moved.q, moved.kv, moved.k_rope, moved.first_visible, out, log_sum_exp, workspace);
  inner_.AttentionForward(stream, moved, out, log_sum_exp, workspace);
}

void MirrorBackend::DoAttentionBackward(Stream& stream, const AttentionArgs& args, const AttentionBackwardArgs& grads,
                                        View workspace) {
  AttentionArgs moved = args;
  AttentionBackwardArgs to = grads;
  const Call call(inner_, stream, moved.q, moved.kv, moved.k_rope, moved.first_visible, to.out, to.log_sum_exp,
                  to.d_out, to.d_q, to.d_kv, to.d_k_rope, workspace);
  inner_.AttentionBackward(stream, moved, to, workspace);
}

void MirrorBackend::DoSwiGlu(Stream& stream, const SwiGluArgs& args, MutableOperand y) {
  SwiGluArgs moved = args;
  const Call call(inner_, stream, moved.gate_up, moved.row_weight, moved.offsets, y);
  inner_.SwiGlu(stream, moved, y);
}

void MirrorBackend::DoSwiGluBackward(Stream& stream, const SwiGluArgs& args, ConstView dy, View d_gate_up,
                                     View d_row_weight) {
  SwiGluArgs moved = args;
  const Call call(inner_, stream, moved.gate_up, moved.row_weight, moved.offsets, dy, d_gate_up, d_row_weight);
  inner_.SwiGluBackward(stream, moved, dy, d_gate_up, d_row_weight);
}

void MirrorBackend::DoGate(Stream& stream, const GateArgs& args, const GateResult& result) {
  GateArgs moved = args;
  GateResult to = result;
  const Call call(inner_, stream, moved.logits, moved.bias, to.scores, to.experts, to.weights, to.counts);
  inner_.Gate(stream, moved, to);
}

void MirrorBackend::DoGateBackward(Stream& stream, const GateArgs& args, const GateBackwardArgs& grads) {
  GateArgs moved = args;
  GateBackwardArgs to = grads;
  const Call call(inner_, stream, moved.logits, moved.bias, to.scores, to.experts, to.d_weights, to.d_scores,
                  to.d_logits);
  inner_.GateBackward(stream, moved, to);
}

void MirrorBackend::DoSequenceBalance(Stream& stream, const SequenceBalanceArgs& args) {
  SequenceBalanceArgs moved = args;
  const Call call(inner_, stream, moved.scores, moved.loss, moved.d_scores);
  inner_.SequenceBalance(stream, moved);
}

void MirrorBackend::DoPlanDispatch(Stream& stream, const PlanDispatchArgs& args) {
  PlanDispatchArgs moved = args;
  const Call call(inner_, stream, moved.experts, moved.offsets, moved.row_token, moved.row_slot, moved.slot_row);
  inner_.PlanDispatch(stream, moved);
}

void MirrorBackend::DoGatherRows(Stream& stream, Operand x, ConstView row_token, ConstView offsets, MutableOperand y) {
  const Call call(inner_, stream, x, row_token, offsets, y);
  inner_.GatherRows(stream, x, row_token, offsets, y);
}

void MirrorBackend::DoGatherChosen(Stream& stream, ConstView chosen_values, ConstView row_slot, ConstView offsets,
                                   View row_values) {
  const Call call(inner_, stream, chosen_values, row_slot, offsets, row_values);
  inner_.GatherChosen(stream, chosen_values, row_slot, offsets, row_values);
}

void MirrorBackend::DoScatterChosen(Stream& stream, ConstView row_values, ConstView slot_row, View chosen_values) {
  const Call call(inner_, stream, row_values, slot_row, chosen_values);
  inner_.ScatterChosen(stream, row_values, slot_row, chosen_values);
}

void MirrorBackend::DoCombineRows(Stream& stream, const CombineArgs& args, View out) {
  CombineArgs moved = args;
  const Call call(inner_, stream, moved.y, moved.slot_row, moved.experts, moved.base, out);
  inner_.CombineRows(stream, moved, out);
}

void MirrorBackend::DoEmbedding(Stream& stream, ConstView ids, ConstView table, View x) {
  const Call call(inner_, stream, ids, table, x);
  inner_.Embedding(stream, ids, table, x);
}

void MirrorBackend::DoEmbeddingBackward(Stream& stream, ConstView ids, ConstView dx, View d_table) {
  const Call call(inner_, stream, ids, dx, d_table);
  inner_.EmbeddingBackward(stream, ids, dx, d_table);
}

void MirrorBackend::DoCrossEntropy(Stream& stream, const CrossEntropyArgs& args) {
  CrossEntropyArgs moved = args;
  const Call call(inner_, stream, moved.logits, moved.targets, moved.loss, moved.d_logits);
  inner_.CrossEntropy(stream, moved);
}

void MirrorBackend::DoSumRows(Stream& stream, ConstView x, View sum) {
  const Call call(inner_, stream, x, sum);
  inner_.SumRows(stream, x, sum);
}

void MirrorBackend::DoSquaredNorm(Stream& stream, ConstView x, View block_sums) {
  const Call call(inner_, stream, x, block_sums);
  inner_.SquaredNorm(stream, x, block_sums);
}

void MirrorBackend::DoAdamW(Stream& stream, const AdamWArgs& args) {
  AdamWArgs moved = args;
  const Call call(inner_, stream, moved.master, moved.grad, moved.m, moved.v, moved.compute);
  inner_.AdamW(stream, moved);
}

void MirrorBackend::DoEma(Stream& stream, ConstView weights, double decay, View ema) {
  const Call call(inner_, stream, weights, ema);
  inner_.Ema(stream, weights, decay, ema);
}

}  // namespace shoestring
