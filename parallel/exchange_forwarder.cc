// Lists are made anew for each pass, from the choices that came in the first hop: the order of a pass follows from them
// at both ends.
#include "parallel/exchange_forwarder.h"

#include <algorithm>

#include "base/check.h"

namespace shoestring {
namespace {

int64_t MaxTokens(const ExchangeGeometry& g) { return g.nodes * g.shape.tokens; }

View AllocateWeights(Arena& arena, int64_t rows, int64_t cols) {
  return arena.Allocate(Purpose::kExchange, "exchange.weights", DType::kF32, rows, cols);
}

View AsFloats(const View& choices) { return {choices.data, DType::kF32, choices.rows, choices.cols}; }

}  // namespace

ExchangeForwarder::ExchangeForwarder(const ExchangeGeometry& g, ExchangeWire& wire, Arena& arena)
    : g_(g),
      wire_(wire),
      part_(g.Part(g.index / g.node_ranks)),
      machine_{part_.first_expert, 1, g.lists.experts_per_destination, g.shape.experts_per_group},
      lists_(part_, arena.measuring() ? 0 : MaxTokens(g), g.list_width),
      runs_(g.nodes),
      machine_counts_(g.nodes) {
  const int64_t tokens = MaxTokens(g);
  const int64_t rows = tokens * part_.MaxDestinations(g.list_width);
  choices_ = AllocateIndices(arena, "exchange.choices", tokens, ChoiceColumns(g.list_width));
  choices_out_ = AllocateIndices(arena, "exchange.choices", rows, ChoiceColumns(g.width));
  choice_slots_ = AllocateIndices(arena, "exchange.choice_slots", rows, g.width);
  list_tokens_ = AllocateIndices(arena, "exchange.send_rows", 1, 1 + rows);
  members_ = AllocateIndices(arena, "exchange.members", g.nodes * g.pass_results, g.list_width);
  slot_place_ = AllocateIndices(arena, "exchange.slot_place", tokens, g.list_width);
  weights_in_ = AllocateWeights(arena, rows, g.width);
  weights_out_ = AllocateWeights(arena, tokens, g.list_width);
  if (arena.measuring()) return;
  host_choices_ = HostInts(choices_.elements());
  host_out_ = HostInts(choices_out_.elements());
  host_slots_ = HostInts(choice_slots_.elements());
  host_members_ = HostInts(members_.elements());
}

// --- choices --------------------------------------------------------------------------------------------------------

bool ExchangeForwarder::ForwardChoices(const BackendRun& run, RankPlan& plan, View away) {
  ForwardPlan& forward = plan.forward;
  for (int i = 0; i < g_.nodes; ++i) forward.offsets[i + 1] = forward.offsets[i] + plan.first_hop_tokens[i];
  const int64_t tokens = forward.offsets.back();
  const int64_t columns = choices_.cols;
  run.backend.CopyToHost(run.stream, choices_.Rows(0, tokens), host_choices_.data());
  run.backend.Synchronize(run.stream);
  for (int64_t token = 0; token < tokens; ++token) {
    const int32_t* choice = host_choices_.data() + token * columns;
    std::copy_n(choice, g_.list_width, forward.ids.data() + token * g_.list_width);
    forward.result_pass[token] = choice[columns - 1];
  }
  ListAll(plan);
  WriteChoices(run, tokens);
  wire_.Begin(run.stream);
  const ArrivalMap& arrivals = *plan.arrivals;
  int64_t arrived = 0;
  for (int i = 0; i < g_.node_ranks; ++i) {
    int64_t count = 0;
    for (int j = 0; j < g_.nodes; ++j) count += arrivals.expected_tokens(i * g_.nodes + j);
    const int64_t first = lists_.offsets[i];
    wire_.Send(ExchangeLeg::kChoices, choices_out_.Rows(first, lists_.offsets[i + 1] - first), g_.LastPeer(i));
    wire_.Receive(ExchangeLeg::kChoices, away.Rows(arrived, count), g_.LastPeer(i));
    arrived += count;
  }
  Ticket ticket = wire_.Start();
  return wire_.Await(run.stream, ticket);
}

// What each rank of the machine is told, from `tokens` choices that came.
void ExchangeForwarder::WriteChoices(const BackendRun& run, int64_t tokens) {
  const int64_t rows = lists_.rows();
  if (rows == 0) return;
  const int64_t columns = choices_out_.cols;
  for (int64_t row = 0; row < rows; ++row) {
    int32_t* choice = host_out_.data() + row * columns;
    const int32_t* came = host_choices_.data() + lists_.row_token[row] * choices_.cols;
    std::copy_n(lists_.row_ids.data() + row * g_.width, g_.width, choice);
    std::fill_n(choice + g_.width, g_.width, 0);
    std::copy_n(came + 2 * g_.list_width, 2, choice + 2 * g_.width);
    for (int64_t place = row * g_.width; place < (row + 1) * g_.width; ++place) {
      const int32_t slot = lists_.row_slot[place];
      host_slots_[place] =
          static_cast<int32_t>(slot / g_.list_width * choices_.cols + g_.list_width + slot % g_.list_width);
    }
  }
  UploadIndices(run.backend, run.stream, host_out_.data(), choices_out_, 0, rows * columns);
  UploadIndices(run.backend, run.stream, host_slots_.data(), choice_slots_, 0, rows * g_.width);
  const View came = choices_.Rows(0, tokens);
  run.backend.ScatterChosen(run.stream, AsFloats(came).Reshape(1, came.elements()), choice_slots_.Rows(0, rows),
                            GateWeights(choices_out_.Rows(0, rows), g_.width));
}

// --- tokens ---------------------------------------------------------------------------------------------------------

void ExchangeForwarder::StartTokens(const BackendRun& run, ExchangeDirection& direction, RankPlan& plan, int64_t pass) {
  run.backend.Synchronize(run.stream);  // the host's lists are written anew
  for (int i = 0; i < g_.nodes; ++i) {
    runs_[i] = g_.RowsOfPass(plan.first_hop_tokens[i], pass);
    runs_[i].first += plan.forward.offsets[i];
  }
  lists_.Build(plan.forward.ids.data(), runs_);
  const int64_t rows = lists_.rows();
  if (rows > 0) {
    const int64_t hidden = g_.options.hidden;
    int64_t tokens = 0;
    for (const IndexRange& r : runs_) tokens += r.count;
    list_count_ = static_cast<int32_t>(rows);
    UploadIndices(run.backend, run.stream, &list_count_, list_tokens_, 0, 1);
    UploadIndices(run.backend, run.stream, lists_.row_token.data(), list_tokens_, 1, rows);
    run.backend.GatherRows(run.stream, TravellingRows(direction.near, direction.format, hidden, tokens),
                           list_tokens_.Columns(1, rows), list_tokens_.Columns(0, 1),
                           TravellingRows(direction.spread, direction.format, hidden, rows));
  }
  const int64_t row_bytes = g_.row_bytes(direction.format);
  wire_.Begin(run.stream);
  int64_t arrived = 0;
  for (int i = 0; i < g_.node_ranks; ++i) {
    int64_t count = 0;
    for (int j = 0; j < g_.nodes; ++j) count += plan.arrivals->TokensOfPass(i * g_.nodes + j, pass).count;
    const int64_t first = lists_.offsets[i];
    wire_.Send(direction.to_experts, TravellingBytes(direction.spread, row_bytes, first, lists_.offsets[i + 1] - first),
               g_.LastPeer(i));
    wire_.Receive(direction.to_experts, TravellingBytes(direction.away, row_bytes, arrived, count), g_.LastPeer(i));
    arrived += count;
  }
  direction.forwarded = wire_.Start();
}

// --- results --------------------------------------------------------------------------------------------------------

void ExchangeForwarder::ListResults(const RankPlan& plan, int64_t pass) {
  for (int i = 0; i < g_.nodes; ++i) {
    runs_[i] = EqualTo(plan.forward.result_pass, plan.forward.offsets[i], plan.forward.offsets[i + 1], pass);
    runs_[i].first += plan.forward.offsets[i];
  }
  lists_.Build(plan.forward.ids.data(), runs_);
}

void ExchangeForwarder::ReceiveResults(ExchangeDirection& direction, RankPlan& plan, int64_t pass) {
  ListResults(plan, pass);
  for (int i = 0; i < g_.node_ranks; ++i) {
    const int64_t first = lists_.result_offsets[i];
    wire_.Receive(
        direction.to_tokens,
        TravellingBytes(direction.spread, g_.row_bytes(g_.act()), first, lists_.result_offsets[i + 1] - first),
        g_.LastPeer(i));
  }
}

int64_t ExchangeForwarder::ListSums(const RankPlan& plan) {
  const int64_t width = g_.list_width;
  int64_t sums = 0;
  int64_t count = 0;  // members of the last sum
  int64_t token = 0;  // among those of the pass
  for (int i = 0; i < g_.nodes; ++i) {
    const int64_t before = sums;
    for (int64_t at = runs_[i].first; at < runs_[i].first + runs_[i].count; ++at, ++token) {
      int64_t previous = -1;
      for (int64_t slot = 0; slot < width; ++slot) {
        const int32_t expert = plan.forward.ids[at * width + slot];
        if (expert < 0) break;
        if (machine_.OpensResult(previous, expert)) {
          std::fill_n(host_members_.data() + sums * width, width, -1);
          ++sums;
          count = 0;
        }
        previous = expert;
        const int32_t result = lists_.slot_result[token * width + slot];
        if (result >= 0) host_members_[(sums - 1) * width + count++] = result;
      }
    }
    machine_counts_[i] = sums - before;
  }
  return sums;
}

void ExchangeForwarder::StartSums(const BackendRun& run, ExchangeDirection& direction, RankPlan& plan, int64_t pass) {
  run.backend.Synchronize(run.stream);  // the host's lists are written anew
  ListResults(plan, pass);
  const int64_t sums = ListSums(plan);
  if (sums > 0) {
    UploadIndices(run.backend, run.stream, host_members_.data(), members_, 0, sums * g_.list_width);
    const ConstView members = members_.Rows(0, sums);
    const int64_t hidden = g_.options.hidden;
    const ConstView came = TravellingRows(direction.spread, g_.act(), hidden, lists_.result_offsets.back()).values;
    run.backend.CombineRows(run.stream, {came, members, members, kOneGroup, {}},
                            TravellingRows(direction.near, g_.act(), hidden, sums).values);
  }
  const int64_t row_bytes = g_.row_bytes(g_.act());
  wire_.Begin(run.stream);
  int64_t sent = 0;
  for (int i = 0; i < g_.nodes; ++i) {
    wire_.Send(direction.to_tokens, TravellingBytes(direction.near, row_bytes, sent, machine_counts_[i]), g_.Peer(i));
    sent += machine_counts_[i];
    const IndexRange came = plan.ResultsOfPass(i, pass);
    wire_.Receive(direction.to_tokens, TravellingBytes(direction.home, row_bytes, came.first, came.count), g_.Peer(i));
  }
  direction.forwarded = wire_.Start();
}

// --- gradients of gate weights --------------------------------------------------------------------------------------

void ExchangeForwarder::ListAll(const RankPlan& plan) {
  const IndexRange all[] = {{0, plan.forward.offsets.back()}};
  lists_.Build(plan.forward.ids.data(), all);
}

void ExchangeForwarder::ReceiveWeights(RankPlan& plan) {
  ListAll(plan);
  for (int i = 0; i < g_.node_ranks; ++i) {
    const int64_t first = lists_.offsets[i];
    wire_.Receive(ExchangeLeg::kDispatchBackwardWeight, weights_in_.Rows(first, lists_.offsets[i + 1] - first),
                  g_.LastPeer(i));
  }
}

bool ExchangeForwarder::ForwardWeights(const BackendRun& run, RankPlan& plan, View home) {
  run.backend.Synchronize(run.stream);  // the host's lists are written anew
  ListAll(plan);
  const int64_t tokens = plan.forward.offsets.back();
  if (tokens > 0) {
    UploadIndices(run.backend, run.stream, lists_.slot_place.data(), slot_place_, 0, tokens * g_.list_width);
    run.backend.ScatterChosen(run.stream, weights_in_.Rows(0, lists_.rows()).Reshape(1, lists_.rows() * g_.width),
                              slot_place_.Rows(0, tokens), weights_out_.Rows(0, tokens));
  }
  wire_.Begin(run.stream);
  for (int i = 0; i < g_.nodes; ++i) {
    const int64_t first = plan.forward.offsets[i];
    wire_.Send(ExchangeLeg::kDispatchBackwardWeight, weights_out_.Rows(first, plan.forward.offsets[i + 1] - first),
               g_.Peer(i));
    wire_.Receive(ExchangeLeg::kDispatchBackwardWeight,
                  home.Rows(plan.send_offsets[i], plan.send_offsets[i + 1] - plan.send_offsets[i]), g_.Peer(i));
  }
  Ticket ticket = wire_.Start();
  return wire_.Await(run.stream, ticket);
}

}  // namespace shoestring
