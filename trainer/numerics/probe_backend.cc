// Forwards every operation, then looks at what it wrote.
#include "trainer/numerics/probe_backend.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/check.h"

namespace shoestring {
namespace {

// "layers.3.mlp.experts.down_proj", "swiglu" -> "layers.3.mlp.experts.swiglu".
std::string Sibling(const std::string& name, absl::string_view other) {
  return absl::StrCat(name.substr(0, name.rfind('.') + 1), other);
}

// "layers.3.mlp.shared_experts.down_proj", "experts" -> "layers.3.mlp.experts".
std::string InMlp(const std::string& name, absl::string_view other) {
  const size_t at = name.find("mlp.");
  CHECK(at != std::string::npos);
  return absl::StrCat(name.substr(0, at), "mlp.", other);
}

// "layers.3.mlp.experts.gate_up_proj.out" -> "layers.3.mlp.experts.gate_up_proj".
std::string WithoutRole(const std::string& name) { return name.substr(0, name.rfind('.')); }

bool IsHead(const std::string& name) { return name == "lm_head"; }

}  // namespace

ProbeBackend::Stem ProbeBackend::StemOf(const Parameter& parameter) const {
  absl::string_view name = parameter.name;
  absl::ConsumePrefix(&name, "model.");
  absl::ConsumeSuffix(&name, ".weight");
  if (parameter.layer >= 0) return {std::string(name), parameter.layer};
  return {std::string(name), name == "embed_tokens" ? -1 : layers_};
}

void ProbeBackend::NameWeight(const Parameter& parameter, const Operand& weight) {
  weights_[weight.values.data] = StemOf(parameter);
}

void ProbeBackend::NameGradient(const Parameter& parameter, ConstView gradient) {
  gradients_[gradient.data] = StemOf(parameter);
}

TensorName ProbeBackend::GradientName(const Parameter& parameter) const {
  const Stem stem = StemOf(parameter);
  return {stem.name + ".dw", TensorGroup::kWeightGradient, stem.layer};
}

void ProbeBackend::SetRouting(const Routing* forced, const Routing* compare) {
  forced_ = forced;
  compare_ = compare;
}

std::vector<MeasuredQuantiser> ProbeBackend::quantisers() const {
  std::vector<MeasuredQuantiser> all;
  std::map<std::string, size_t> index;
  for (const Event& event : events_) {
    const std::string name = event.name.empty() ? event.fallback + " kept" : event.name;
    const auto [found, is_new] = index.try_emplace(name, all.size());
    if (is_new) {
      all.push_back(event.what);
      all.back().name = name;
    } else {
      all[found->second].loss.Merge(event.what.loss);
    }
  }
  return all;
}

bool ProbeBackend::looks(bool of_experts) const {
  if (phase_ != ProbePhase::kForward && phase_ != ProbePhase::kInputGradient) return false;
  return !of_experts || forced_ != nullptr || compare_ == nullptr;
}

void ProbeBackend::Record(const Stem& stem, const char* role, TensorGroup group, const Operand& x, bool of_experts) {
  const std::string name = absl::StrCat(stem.name, role);
  made_by_[x.values.data] = {name, stem.layer};
  if (looks(of_experts)) sink_.Take({name, group, stem.layer}, ReadElements(x));
}

void ProbeBackend::Consumed(const Operand& x, const Stem& stem, const char* role) {
  const auto found = quantised_at_.find(x.values.data);
  if (!x.quantised() || found == quantised_at_.end()) return;
  Event& event = events_[found->second];
  if (!event.name.empty()) return;
  event.name = absl::StrCat(stem.name, role);
  event.what.layer = stem.layer;
}

View ProbeBackend::Unfused(DType dtype, int64_t rows, int64_t cols) {
  unfused_.resize(std::max<size_t>(unfused_.size(), BytesOf(dtype, rows * cols)));
  return {unfused_.data(), dtype, rows, cols};
}

void ProbeBackend::DoAdd(Stream& stream, ConstView a, ConstView b, View y) {
  inner_.Add(stream, a, b, y);
  if (phase_ != ProbePhase::kForward) return;
  const bool shared = absl::StrContains(last_product_.name, "shared_experts");
  const std::string name = shared ? InMlp(last_product_.name, "shared_experts.residual")
                                  : last_product_.name.substr(0, last_product_.name.find("mlp.")) + "block";
  Record({name, last_product_.layer}, ".out", TensorGroup::kActivation, y);
}

void ProbeBackend::DoQuantize(Stream& stream, const QuantizeArgs& args) {
  inner_.Quantize(stream, args);
  std::vector<float> scales;
  const std::vector<float> y = ReadElements(args.y, args.stack, args.segments, &scales);
  const std::vector<float> x = ReadElements(args.x);
  const int64_t groups = args.segments.groups;
  const int64_t rows = groups > 0 ? args.segments.offsets.as<int32_t>()[groups] : args.x.values.rows;
  const DType format = args.y.values.dtype;
  Event event{"", "", {"", 0, format, args.y.tile, args.y.power_of_two, QuantiserLoss()}};
  const size_t count = rows * args.x.values.cols;
  event.what.loss.Add(format, {x.data(), count}, {scales.data(), count}, {y.data(), count});
  const auto weight = weights_.find(args.y.values.data);
  if (weight != weights_.end()) {
    event.name = weight->second.name + ".weight";
    event.what.layer = weight->second.layer;
  } else if (const auto made = made_by_.find(args.x.values.data); made != made_by_.end()) {
    event.fallback = made->second.name;
    event.what.layer = made->second.layer;
    made_by_[args.y.values.data] = made->second;
  }
  quantised_at_[args.y.values.data] = events_.size();
  events_.push_back(std::move(event));
}

void ProbeBackend::DoDequantize(Stream& stream, Operand x, View y, int64_t stack, ConstView offsets) {
  inner_.Dequantize(stream, x, y, stack, offsets);
  if (const auto made = made_by_.find(x.values.data); made != made_by_.end()) made_by_[y.data] = made->second;
}

void ProbeBackend::AfterProduct(GemmLayout layout, const Operand& a, const Operand& b, View c, bool of_experts) {
  if (layout == GemmLayout::kTN) {
    const auto found = gradients_.find(c.data);
    if (found == gradients_.end()) return;
    Consumed(a, found->second, ".dy by tokens");
    Consumed(b, found->second, ".x by tokens");
    return;
  }
  const auto found = weights_.find(b.values.data);
  CHECK(found != weights_.end());
  Stem stem = found->second;
  const bool is_forward = layout == GemmLayout::kNT;
  if (IsHead(stem.name)) {
    if (is_forward) {
      // Modules have a norm of their own before the shared matrix.
      if (last_norm_.layer != layers_) stem = {Sibling(last_norm_.name, "lm_head"), last_norm_.layer};
    } else if (const auto made = made_by_.find(a.values.data); made != made_by_.end()) {
      stem = {std::string(absl::StripSuffix(made->second.name, ".dy")), made->second.layer};
    }
  }
  Consumed(a, stem, is_forward ? ".x" : ".dy");
  last_product_ = stem;
  Record(stem, is_forward ? ".out" : ".dx", is_forward ? TensorGroup::kActivation : TensorGroup::kGradient, c,
         of_experts);
}

void ProbeBackend::DoGemm(Stream& stream, GemmLayout layout, Operand a, Operand b, View c, bool accumulate,
                          const Fp8Accumulation& how) {
  inner_.Gemm(stream, layout, a, b, c, accumulate, how);
  AfterProduct(layout, a, b, c, /*of_experts=*/false);
}

void ProbeBackend::DoGroupedGemm(Stream& stream, GemmLayout layout, const Segments& segments, Operand a, Operand b,
                                 View c, bool accumulate, const Fp8Accumulation& how) {
  inner_.GroupedGemm(stream, layout, segments, a, b, c, accumulate, how);
  AfterProduct(layout, a, b, c, /*of_experts=*/true);
}

// What is quantised as it is made is made and quantised in two steps here: the same bits (docs/numerics.md), and both
// can be seen.
void ProbeBackend::DoRmsNorm(Stream& stream, const RmsNormArgs& args) {
  RmsNormArgs plain = args;
  if (args.y.quantised()) plain.y = Unfused(args.x.dtype, args.x.rows, args.x.cols);
  inner_.RmsNorm(stream, plain);
  const auto found = weights_.find(args.gain.data);
  CHECK(found != weights_.end());
  last_norm_ = found->second;
  if (args.delta) {
    Record({Sibling(last_norm_.name, "residual"), last_norm_.layer}, ".out", TensorGroup::kActivation, args.sum);
  }
  Record(last_norm_, ".out", TensorGroup::kActivation, plain.y);
  if (args.y.quantised()) DoQuantize(stream, {plain.y, args.y, /*stack=*/1, /*segments=*/{}});
}

void ProbeBackend::DoRmsNormBackwardInput(Stream& stream, const RmsNormBackwardInputArgs& args) {
  inner_.RmsNormBackwardInput(stream, args);
  const auto found = weights_.find(args.gain.data);
  CHECK(found != weights_.end());
  Record(found->second, ".dx", TensorGroup::kGradient, args.dx);
}

void ProbeBackend::DoAttentionForward(Stream& stream, const AttentionArgs& args, View out, View log_sum_exp,
                                      View workspace) {
  inner_.AttentionForward(stream, args, out, log_sum_exp, workspace);
  Record({Sibling(last_product_.name, "core"), last_product_.layer}, ".out", TensorGroup::kActivation, out);
}

void ProbeBackend::DoAttentionBackward(Stream& stream, const AttentionArgs& args, const AttentionBackwardArgs& grads,
                                       View workspace) {
  inner_.AttentionBackward(stream, args, grads, workspace);
  const Stem core{Sibling(last_product_.name, "core"), last_product_.layer};
  Record(core, ".dq", TensorGroup::kGradient, grads.d_q);
  Record(core, ".dkv", TensorGroup::kGradient, grads.d_kv);
  Record(core, ".dk_rope", TensorGroup::kGradient, grads.d_k_rope);
}

ProbeBackend::Stem ProbeBackend::SwiGluOf(ConstView gate_up) const {
  const Stem& product = made_by_.at(gate_up.data);
  return {Sibling(WithoutRole(product.name), "swiglu"), product.layer};
}

void ProbeBackend::DoSwiGlu(Stream& stream, const SwiGluArgs& args, MutableOperand y) {
  MutableOperand plain = y;
  if (y.quantised()) plain = Unfused(args.gate_up.dtype, y.values.rows, y.values.cols);
  inner_.SwiGlu(stream, args, plain);
  const Stem swiglu = SwiGluOf(args.gate_up);
  Record(swiglu, ".out", TensorGroup::kActivation, plain, /*of_experts=*/args.offsets.data != nullptr);
  if (!y.quantised()) return;
  const int64_t groups = args.offsets ? args.offsets.cols - 1 : 0;
  DoQuantize(stream, {plain, y, /*stack=*/1, {args.offsets, groups, y.values.rows}});
}

void ProbeBackend::DoSwiGluBackward(Stream& stream, const SwiGluArgs& args, ConstView dy, View d_gate_up,
                                    View d_row_weight) {
  inner_.SwiGluBackward(stream, args, dy, d_gate_up, d_row_weight);
  const Stem swiglu = SwiGluOf(args.gate_up);
  const bool of_experts = args.offsets.data != nullptr;
  Record(swiglu, ".dx", TensorGroup::kGradient, d_gate_up, of_experts);
  if (d_row_weight) Record(swiglu, ".d_gate_weight", TensorGroup::kGradient, d_row_weight, of_experts);
}

void ProbeBackend::CompareChoice(const GateResult& result) {
  const int32_t* chosen = result.experts.as<int32_t>();
  routing_.experts.emplace_back(chosen, chosen + result.experts.elements());
  if (compare_ == nullptr) return;
  const size_t gate = routing_.experts.size() - 1;
  CHECK_LT(gate, compare_->experts.size());
  const std::vector<int32_t>& wanted = compare_->experts[gate];
  const int64_t k = result.experts.cols;
  for (int64_t t = 0; t < result.experts.rows; ++t) {
    ++routed_tokens_;
    if (!std::equal(chosen + t * k, chosen + (t + 1) * k, wanted.begin() + t * k)) ++differing_tokens_;
  }
}

// Tokens that chose as the reference did keep their bits. The counts of experts, which nothing here reads, stay those
// of the choice.
void ProbeBackend::ForceChoice(const GateArgs& args, const GateResult& result) {
  const std::vector<int32_t>& wanted = forced_->experts[routing_.experts.size() - 1];
  const int64_t k = result.experts.cols;
  for (int64_t t = 0; t < result.experts.rows; ++t) {
    int32_t* experts = result.experts.as<int32_t>(t);
    if (std::equal(experts, experts + k, wanted.begin() + t * k)) continue;
    std::copy_n(wanted.begin() + t * k, k, experts);
    const float* scores = result.scores.as<float>(t);
    float sum = 1e-20f;
    for (int64_t i = 0; i < k; ++i) sum += scores[experts[i]];
    const float factor = static_cast<float>(args.scaling) / (args.renormalize ? sum : 1.0f);
    for (int64_t i = 0; i < k; ++i) result.weights.as<float>(t)[i] = scores[experts[i]] * factor;
  }
}

void ProbeBackend::DoGate(Stream& stream, const GateArgs& args, const GateResult& result) {
  inner_.Gate(stream, args, result);
  CompareChoice(result);
  if (forced_ != nullptr) ForceChoice(args, result);
  Record(last_product_, ".scores", TensorGroup::kActivation, result.scores);
  Record(last_product_, ".weights", TensorGroup::kActivation, result.weights, /*of_experts=*/true);
}

void ProbeBackend::DoGateBackward(Stream& stream, const GateArgs& args, const GateBackwardArgs& grads) {
  inner_.GateBackward(stream, args, grads);
  const auto scores = made_by_.find(grads.scores.data);
  CHECK(scores != made_by_.end());
  const Stem gate{std::string(absl::StripSuffix(scores->second.name, ".scores")), scores->second.layer};
  Record(gate, ".dy", TensorGroup::kGradient, grads.d_logits);
}

void ProbeBackend::DoPlanDispatch(Stream& stream, const PlanDispatchArgs& args) {
  inner_.PlanDispatch(stream, args);
  const Stem experts{InMlp(last_product_.name, "experts"), last_product_.layer};
  made_by_[args.row_token.data] = experts;
  made_by_[args.slot_row.data] = experts;
}

void ProbeBackend::DoGatherRows(Stream& stream, Operand x, ConstView row_token, ConstView offsets, MutableOperand y) {
  inner_.GatherRows(stream, x, row_token, offsets, y);
  const Stem experts = made_by_.at(row_token.data);
  const bool is_forward = phase_ == ProbePhase::kForward;
  Consumed(x, experts, is_forward ? ".dispatch" : ".dispatch_gradient");
  Record(experts, is_forward ? ".dispatch" : ".dispatch_gradient",
         is_forward ? TensorGroup::kActivation : TensorGroup::kGradient, y, /*of_experts=*/true);
}

void ProbeBackend::DoCombineRows(Stream& stream, const CombineArgs& args, View out) {
  inner_.CombineRows(stream, args, out);
  const Stem experts = made_by_.at(args.slot_row.data);
  if (phase_ == ProbePhase::kForward) {
    Record({absl::StrCat(experts.name.substr(0, experts.name.find("mlp.")), "block"), experts.layer}, ".out",
           TensorGroup::kActivation, out);
  } else {
    Record({experts.name.substr(0, experts.name.rfind('.')), experts.layer}, ".dx", TensorGroup::kGradient, out);
  }
}

void ProbeBackend::DoEmbedding(Stream& stream, ConstView ids, ConstView table, View x) {
  inner_.Embedding(stream, ids, table, x);
  const int modules = layers_ - main_layers_;
  const int module = embeddings_++;
  CHECK_LE(module, modules);
  if (module == 0) {
    Record({"embed_tokens", -1}, ".out", TensorGroup::kActivation, x);
  } else {
    const int layer = main_layers_ + module - 1;
    Record({absl::StrCat("layers.", layer, ".embed_tokens"), layer}, ".out", TensorGroup::kActivation, x);
  }
}

void ProbeBackend::DoCrossEntropy(Stream& stream, const CrossEntropyArgs& args) {
  inner_.CrossEntropy(stream, args);
  Record(last_product_, ".loss", TensorGroup::kActivation, args.loss);
  if (args.d_logits) Record(last_product_, ".dy", TensorGroup::kGradient, args.d_logits);
}

}  // namespace shoestring
