// The list, and which views of a rank are which parts of it.
#include "trainer/verify/step_tensors.h"

#include <functional>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "trainer/checkpoint/train_state_io.h"

namespace shoestring {
namespace {

constexpr int kLosses = 3;            // of the main model, of MTP, of balance
constexpr int kPositionElements = 6;  // as RunPosition has them

std::vector<int64_t> ShapeOf(const Parameter& p) {
  if (p.stack > 1) return {p.stack, p.rows, p.cols};
  if (p.rows > 1) return {p.rows, p.cols};
  return {p.cols};
}

bool IsBias(const Parameter& p) { return !p.trained; }

// Adds parts in the order of ListStepTensors.
class Collector {
 public:
  Collector(const RankLinks& links, StepParts& parts) : speaks_(links.rank == Rank(0)), parts_(parts) {}

  // What every rank has whole; the first rank speaks for all.
  void AddWhole(ConstView view) {
    parts_.kept.push_back({next_, 0, view});
    if (speaks_) parts_.spoken.push_back({next_, 0, view});
    ++next_;
  }
  int Take(int tensors) {
    next_ += tensors;
    return next_ - tensors;
  }

 private:
  const bool speaks_;
  StepParts& parts_;
  int next_ = 0;
};

template <typename T>
ConstView Whole(const T* data, size_t elements, DType dtype) {
  return ConstView(reinterpret_cast<const std::byte*>(data), dtype, 1, static_cast<int64_t>(elements));
}

// What lies in a device's memory, in the host's.
class HostViews {
 public:
  HostViews(Backend& backend, Stream& stream, StepScalars& kept) : backend_(backend), stream_(stream), kept_(kept) {
    kept_.copies.clear();
  }
  ~HostViews() {
    if (!kept_.copies.empty()) backend_.Synchronize(stream_);
  }
  ConstView Of(ConstView view) {
    if (backend_.memory_is_hosts()) return view;
    std::vector<std::byte>& copy = kept_.copies.emplace_back(view.bytes());
    backend_.CopyToHost(stream_, view, copy.data());
    return {copy.data(), view.dtype, view.rows, view.cols};
  }

 private:
  Backend& backend_;
  Stream& stream_;
  StepScalars& kept_;
};

// `first` is the number of the first gradient; gradients are numbered like the trained parameters of the whole table.
void AddGradients(const HeldTable& held, const Gradient& gradient, int first, HostViews& host, StepParts& parts) {
  std::vector<int> number(held.whole().size(), -1);
  int next = first;
  for (size_t i = 0; i < held.whole().size(); ++i) {
    if (held.whole()[i].trained) number[i] = next++;
  }
  for (size_t i = 0; i < held.held().size(); ++i) {
    const HeldParameter& h = held.held()[i];
    const Parameter& p = held.parameters()[i];
    const int64_t before = h.first_matrix * p.rows * p.cols;
    const auto add = [&](const View& view, const IndexRange& range, std::vector<TensorPart>& to) {
      if (view.elements() > 0) to.push_back({number[h.table_index], before + range.first, host.Of(view)});
    };
    add(gradient.kept[i], h.kept, parts.kept);
    add(gradient.reduced[i], h.reduced, parts.spoken);
  }
}

void AddState(const TrainState& state, const RankLinks& links, int first, HostViews& host, StepParts& parts) {
  for (const StatePart& part : PartsOf(state, links, StateScope::kKept)) {
    parts.kept.push_back({first + static_cast<int>(part.tensor), part.first, host.Of(part.view)});
  }
  for (const StatePart& part : PartsOf(state, links, StateScope::kSpoken)) {
    parts.spoken.push_back({first + static_cast<int>(part.tensor), part.first, host.Of(part.view)});
  }
}

}  // namespace

int64_t StepTensor::elements() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

std::string StepTensor::full_name() const { return name.empty() ? kind : absl::StrCat(kind, ".", name); }

std::vector<StepTensor> ListStepTensors(const TrainState& state) {
  const std::vector<Parameter>& table = state.held().whole();
  std::vector<StepTensor> tensors;
  for (const char* kind : {"loss", "loss_mtp", "loss_balance"}) tensors.push_back({kind, "", DType::kF64, {1}});
  for (const Parameter& p : table) {
    if (IsBias(p)) tensors.push_back({"expert_counts", p.name, DType::kI64, {p.cols}});
  }
  for (const Parameter& p : table) {
    if (p.trained) tensors.push_back({"gradient", p.name, DType::kF32, ShapeOf(p)});
  }
  tensors.push_back({"grad_norm", "", DType::kF64, {1}});
  for (const StateTensor& tensor : WholeStateTensors(state)) {
    tensors.push_back({Name(tensor.kind), tensor.name, tensor.view.dtype, tensor.shape});
  }
  tensors.push_back({"position", "", DType::kI64, {kPositionElements}});
  return tensors;
}

StepParts PartsOfStep(const TrainState& state, Backend& backend, Stream& stream, const RankLinks& links,
                      const StepResult& result, const Gradient& gradient, StepScalars& scalars) {
  const RunPosition& at = state.position;
  scalars.losses = {result.loss, result.loss_mtp, result.loss_balance};
  scalars.grad_norm = result.grad_norm;
  scalars.position = {at.step, at.tokens, at.phase, at.phase_step, at.phase_tokens, at.phase_sequences};
  CHECK_EQ(scalars.losses.size(), kLosses);
  CHECK_EQ(scalars.position.size(), kPositionElements);
  StepParts parts;
  HostViews host(backend, stream, scalars);
  Collector collector(links, parts);
  for (const double& loss : scalars.losses) collector.AddWhole(Whole(&loss, 1, DType::kF64));
  for (const std::vector<int64_t>& counts : result.expert_counts) {
    collector.AddWhole(Whole(counts.data(), counts.size(), DType::kI64));
  }
  int trained = 0;
  for (const Parameter& p : state.held().whole()) trained += p.trained ? 1 : 0;
  AddGradients(state.held(), gradient, collector.Take(trained), host, parts);
  collector.AddWhole(Whole(&scalars.grad_norm, 1, DType::kF64));
  AddState(state, links, collector.Take(static_cast<int>(WholeStateTensors(state).size())), host, parts);
  collector.AddWhole(Whole(scalars.position.data(), scalars.position.size(), DType::kI64));
  return parts;
}

}  // namespace shoestring
