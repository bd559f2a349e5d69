// The ends of an exchange: packing and expanding tokens, summing and finishing results, pass by pass.
#include "parallel/all_to_all_exchange.h"

#include <algorithm>

#include "base/check.h"

namespace shoestring {
namespace {

// Columns of what a rank tells another at the start of a dispatch; after them a count for each of the other's experts.
enum CountColumn { kTokens = 0, kFirstHop = 1, kPasses = 2, kResultPasses = 3, kCountColumns = 4 };

RankPlan& Own(ExpertExchange::Plan& plan) { return static_cast<RankPlan&>(plan); }
const RankPlan& Own(const ExpertExchange::Plan& plan) { return static_cast<const RankPlan&>(plan); }

MutableOperand RowsOf(const MutableOperand& x, int64_t first, int64_t count) {
  MutableOperand rows = x;
  rows.values = x.values.Rows(first, count);
  if (x.quantised()) rows.scales = x.scales.Rows(first, count);
  return rows;
}

ConstView Flat(const ConstView& x) { return x.Reshape(1, x.elements()); }

ConstView AsFloats(const View& choices) { return {choices.data, DType::kF32, choices.rows, choices.cols}; }

View AllocateFloats(Arena& arena, absl::string_view name, int64_t rows, int64_t cols) {
  return arena.Allocate(Purpose::kExchange, name, DType::kF32, rows, cols);
}

}  // namespace

AllToAllExchange::Choices::Choices(const ExchangeGeometry& g, Arena& arena)
    : counts_sent(AllocateIndices(arena, "exchange.counts", g.ranks, kCountColumns + g.local_experts)),
      counts_came(AllocateIndices(arena, "exchange.counts", g.ranks, kCountColumns + g.local_experts)),
      home(AllocateIndices(arena, "exchange.choices", g.max_list_rows(), ChoiceColumns(g.list_width))),
      away(AllocateIndices(arena, "exchange.choices", g.ranks * g.shape.tokens, ChoiceColumns(g.width))),
      slots(AllocateIndices(arena, "exchange.choice_slots", g.max_list_rows(), g.list_width)),
      row_place(AllocateIndices(arena, "exchange.row_place", 1, g.max_rows)),
      weight_rows(AllocateIndices(arena, "exchange.weight_rows", g.ranks * g.shape.tokens, g.width)),
      weights_away(AllocateFloats(arena, "exchange.weights", g.ranks * g.shape.tokens, g.width)),
      weights_home(AllocateFloats(arena, "exchange.weights", g.max_list_rows(), g.list_width)) {
  if (arena.measuring()) return;
  experts = HostInts(g.shape.tokens * g.shape.chosen);
  counts = HostInts(counts_sent.elements());
  home_rows = HostInts(home.elements());
  away_rows = HostInts(away.elements());
  places = HostInts(g.max_rows);
  lists = std::make_unique<SourceMap>(g.lists, g.shape.tokens, g.shape.chosen);
}

AllToAllExchange::AllToAllExchange(const ExchangeShape& shape, const ExchangeOptions& options, Communicator& group,
                                   const std::vector<int>& node_of, int ranks_per_node, bool two_hop, Arena& arena)
    : g_(shape, options, group.size(), group.index(), ranks_per_node, two_hop),
      measuring_(arena.measuring()),
      wire_(group, node_of, options.timeout_s),
      forward_(g_, options.dispatch, arena),
      backward_(g_, options.dispatch_gradient, arena),
      choices_(g_, arena),
      forwarder_(two_hop ? std::make_unique<ExchangeForwarder>(g_, wire_, arena) : nullptr) {
  backward_.to_experts = ExchangeLeg::kCombineBackward;
  backward_.to_tokens = ExchangeLeg::kDispatchBackward;
}

Segments AllToAllExchange::segments(const Plan& plan) const {
  const int64_t came = measuring_ ? -1 : Own(plan).arrivals->rows();
  return {Own(plan).offsets, g_.local_experts, g_.max_rows, came};
}
ConstView AllToAllExchange::lane_offsets(const Plan& plan) const { return Own(plan).lane_offsets; }
absl::Span<const int32_t> AllToAllExchange::host_lane_offsets(const Plan& plan) const {
  return measuring_ ? absl::Span<const int32_t>() : Own(plan).arrivals->lane_offsets();
}

// --- dispatch -------------------------------------------------------------------------------------------------------

void AllToAllExchange::BeginDispatch(Backend& backend, Stream& stream, Plan& base_plan,
                                     const DispatchArgs& args) const {
  if (measuring_) return;
  const BackendRun run{backend, stream};
  RankPlan& plan = Own(base_plan);
  plan.dispatch = args;
  plan.tokens = args.experts.rows;
  CHECK_LE(plan.tokens, g_.shape.tokens);
  BuildLists(run, plan);
  if (!TellCounts(run, plan)) {
    Clear(run, plan);
    return;
  }
  WriteChoices(run, plan);
  BeginTokens(run, forward_, plan, args.x);
}

// Reads the choices, and from them makes the lists of this rank's tokens.
void AllToAllExchange::BuildLists(const BackendRun& run, RankPlan& plan) const {
  run.backend.CopyToHost(run.stream, plan.dispatch.experts, choices_.experts.data());
  run.backend.Synchronize(run.stream);
  SourceMap& lists = *choices_.lists;
  const IndexRange all[] = {{0, plan.tokens}};
  lists.Build(choices_.experts.data(), all);
  std::copy(lists.offsets.begin(), lists.offsets.end(), plan.send_offsets.begin());
  std::copy(lists.result_offsets.begin(), lists.result_offsets.end(), plan.result_offsets.begin());
  std::copy_n(lists.first_result.data(), lists.rows() + 1, plan.first_result.data());
  plan.passes = 0;
  plan.result_passes = 0;
  for (int64_t list = 0; list < g_.peers(); ++list) {
    const int64_t first = lists.offsets[list];
    const int64_t rows = lists.offsets[list + 1] - first;
    plan.passes = std::max(plan.passes, (rows + g_.pass_tokens - 1) / g_.pass_tokens);
    const int64_t result_passes = CutPasses(g_.Part(list), lists.row_ids.data() + first * g_.list_width, g_.list_width,
                                            rows, g_.pass_results, plan.row_result_pass.data() + first);
    plan.result_passes = std::max(plan.result_passes, result_passes);
  }
  choices_.send_count = static_cast<int32_t>(lists.rows());
  UploadIndices(run.backend, run.stream, &choices_.send_count, plan.send_rows, 0, 1);
  UploadIndices(run.backend, run.stream, lists.row_token.data(), plan.send_rows, 1, lists.rows());
  const int64_t slots = plan.tokens * g_.shape.chosen;
  UploadIndices(run.backend, run.stream, lists.slot_result.data(), plan.slot_result, 0, slots);
  UploadIndices(run.backend, run.stream, lists.slot_place.data(), plan.slot_place, 0, slots);
}

bool AllToAllExchange::TellCounts(const BackendRun& run, RankPlan& plan) const {
  const int64_t columns = choices_.counts_sent.cols;
  int32_t* counts = choices_.counts.data();
  std::fill_n(counts, choices_.counts.size(), 0);
  for (int64_t token = 0; token < plan.tokens; ++token) {
    int64_t last = -1;
    for (int64_t k = 0; k < g_.shape.chosen; ++k) {
      const int64_t expert = choices_.experts[token * g_.shape.chosen + k];
      const int64_t rank = expert / g_.local_experts;
      counts[rank * columns + kTokens] += rank != last ? 1 : 0;
      ++counts[rank * columns + kCountColumns + expert % g_.local_experts];
      last = rank;
    }
  }
  for (int rank = 0; rank < g_.ranks; ++rank) {
    counts[rank * columns + kPasses] = static_cast<int32_t>(plan.passes);
    counts[rank * columns + kResultPasses] = static_cast<int32_t>(plan.result_passes);
  }
  for (int i = 0; i < g_.peers(); ++i) {
    counts[g_.Peer(i) * columns + kFirstHop] = static_cast<int32_t>(plan.send_offsets[i + 1] - plan.send_offsets[i]);
  }
  UploadIndices(run.backend, run.stream, counts, choices_.counts_sent, 0, choices_.counts.size());
  if (!wire_.Transpose(run.stream, ExchangeLeg::kCounts, choices_.counts_sent, choices_.counts_came)) return false;
  run.backend.CopyToHost(run.stream, choices_.counts_came, counts);
  run.backend.Synchronize(run.stream);
  for (int rank = 0; rank < g_.ranks; ++rank) {
    const int32_t* told = counts + rank * columns;
    plan.arrivals->SetCounts(rank, told[kTokens], told + kCountColumns);
    plan.passes = std::max<int64_t>(plan.passes, told[kPasses]);
    plan.result_passes = std::max<int64_t>(plan.result_passes, told[kResultPasses]);
  }
  for (int i = 0; i < g_.peers(); ++i) plan.first_hop_tokens[i] = counts[g_.Peer(i) * columns + kFirstHop];
  return true;
}

void AllToAllExchange::WriteChoices(const BackendRun& run, RankPlan& plan) const {
  const SourceMap& lists = *choices_.lists;
  if (lists.rows() == 0) return;
  const int64_t width = g_.list_width;
  for (int64_t list = 0; list < g_.peers(); ++list) {
    for (int64_t row = lists.offsets[list]; row < lists.offsets[list + 1]; ++row) {
      int32_t* choice = choices_.home_rows.data() + row * ChoiceColumns(width);
      std::copy_n(lists.row_ids.data() + row * width, width, choice);
      std::fill_n(choice + width, width, 0);
      choice[2 * width] = static_cast<int32_t>((row - lists.offsets[list]) / g_.pass_tokens);
      choice[2 * width + 1] = plan.row_result_pass[row];
    }
  }
  UploadIndices(run.backend, run.stream, choices_.home_rows.data(), choices_.home, 0,
                lists.rows() * ChoiceColumns(width));
  UploadIndices(run.backend, run.stream, lists.row_slot.data(), choices_.slots, 0, lists.rows() * width);
  run.backend.ScatterChosen(run.stream, Flat(plan.dispatch.weights), choices_.slots.Rows(0, lists.rows()),
                            GateWeights(choices_.home.Rows(0, lists.rows()), width));
}

void AllToAllExchange::AwaitDispatch(Backend& backend, Stream& stream, Plan& base_plan) const {
  if (measuring_) return;
  const BackendRun run{backend, stream};
  RankPlan& plan = Own(base_plan);
  if (!ReceiveChoices(run, plan)) {
    Clear(run, plan);
    return;
  }
  ReceiveGateWeights(run, plan);
  if (!AwaitTokens(run, forward_, plan, plan.dispatch.rows)) Clear(run, plan);
}

bool AllToAllExchange::ReceiveChoices(const BackendRun& run, RankPlan& plan) const {
  if (!wire_.Await(run.stream, forward_.ticket)) return false;
  if (forwarder_ != nullptr && !forwarder_->ForwardChoices(run, plan, choices_.away)) return false;
  ArrivalMap& arrivals = *plan.arrivals;
  run.backend.CopyToHost(run.stream, choices_.away.Rows(0, arrivals.expected_tokens()), choices_.away_rows.data());
  run.backend.Synchronize(run.stream);
  arrivals.Build(choices_.away_rows.data());
  UploadIndices(run.backend, run.stream, arrivals.offsets().data(), plan.offsets, 0, plan.offsets.cols);
  UploadIndices(run.backend, run.stream, arrivals.lane_offsets().data(), plan.lane_offsets, 0, plan.lane_offsets.cols);
  return true;
}

void AllToAllExchange::ReceiveGateWeights(const BackendRun& run, RankPlan& plan) const {
  const ArrivalMap& arrivals = *plan.arrivals;
  for (int64_t token = 0; token < arrivals.tokens(); ++token) {
    for (int64_t place = 0; place < g_.width; ++place) {
      const int32_t row = arrivals.token_rows()[token * g_.width + place];
      if (row < 0) continue;
      choices_.places[row] = static_cast<int32_t>(token * ChoiceColumns(g_.width) + g_.width + place);
    }
  }
  UploadIndices(run.backend, run.stream, choices_.places.data(), choices_.row_place, 0, arrivals.rows());
  run.backend.GatherChosen(run.stream, AsFloats(choices_.away), choices_.row_place, plan.offsets,
                           plan.dispatch.row_weight);
}

// As if nobody had sent anything.
void AllToAllExchange::Clear(const BackendRun& run, RankPlan& plan) const {
  plan.arrivals->Clear();
  run.backend.Zero(run.stream, plan.offsets);
  run.backend.Zero(run.stream, plan.lane_offsets);
}

// --- rows to experts ------------------------------------------------------------------------------------------------

// Packs the rows of all lists and starts the first pass.
void AllToAllExchange::BeginTokens(const BackendRun& run, ExchangeDirection& direction, RankPlan& plan,
                                   Operand x) const {
  const int64_t rows = plan.send_count();
  if (rows > 0) {
    run.backend.GatherRows(run.stream, x, plan.send_rows.Columns(1, rows), plan.send_rows.Columns(0, 1),
                           TravellingRows(direction.home, direction.format, g_.options.hidden, rows));
  }
  StartTokens(run, direction, plan, 0, /*with_choices=*/&direction == &forward_);
}

void AllToAllExchange::StartTokens(const BackendRun& run, ExchangeDirection& direction, RankPlan& plan, int64_t pass,
                                   bool with_choices) const {
  const int64_t row_bytes = g_.row_bytes(direction.format);
  const View arrival = forwarder_ != nullptr ? direction.near : direction.away;
  const View choices = forwarder_ != nullptr ? forwarder_->choices() : choices_.away;
  int64_t arrived = 0;
  int64_t choices_arrived = 0;
  wire_.Begin(run.stream);
  for (int i = 0; i < g_.peers(); ++i) {
    const int64_t first = plan.send_offsets[i];
    const int64_t send_rows = plan.send_offsets[i + 1] - first;
    const int64_t receive_rows = plan.first_hop_tokens[i];
    if (with_choices) {
      wire_.Send(ExchangeLeg::kChoices, choices_.home.Rows(first, send_rows), g_.Peer(i));
      wire_.Receive(ExchangeLeg::kChoices, choices.Rows(choices_arrived, receive_rows), g_.Peer(i));
      choices_arrived += receive_rows;
    }
    const IndexRange sent = g_.RowsOfPass(send_rows, pass);
    const IndexRange received = g_.RowsOfPass(receive_rows, pass);
    wire_.Send(direction.to_experts, TravellingBytes(direction.home, row_bytes, first + sent.first, sent.count),
               g_.Peer(i));
    wire_.Receive(direction.to_experts, TravellingBytes(arrival, row_bytes, arrived, received.count), g_.Peer(i));
    arrived += received.count;
  }
  direction.ticket = wire_.Start();
}

bool AllToAllExchange::AwaitTokens(const BackendRun& run, ExchangeDirection& direction, RankPlan& plan,
                                   MutableOperand rows) const {
  for (int64_t pass = 0; pass < plan.passes; ++pass) {
    if (!wire_.Await(run.stream, direction.ticket)) return false;
    const bool more = pass + 1 < plan.passes;
    if (forwarder_ != nullptr) {
      // While they spread inside the machine, the next tokens come from others.
      forwarder_->StartTokens(run, direction, plan, pass);
      if (more) StartTokens(run, direction, plan, pass + 1, /*with_choices=*/false);
      if (!wire_.Await(run.stream, direction.forwarded)) return false;
    }
    Expand(run, direction, plan, pass, rows);
    if (forwarder_ == nullptr && more) StartTokens(run, direction, plan, pass + 1, /*with_choices=*/false);
  }
  return wire_.Await(run.stream, direction.ticket);  // of a pass in which nobody had anything to send
}

// Copies the tokens of a pass to the rows that they are for each of their experts.
void AllToAllExchange::Expand(const BackendRun& run, ExchangeDirection& direction, RankPlan& plan, int64_t pass,
                              MutableOperand rows) const {
  run.backend.Synchronize(run.stream);  // the host's lists are written anew
  ArrivalMap& arrivals = *plan.arrivals;
  int64_t tokens = 0;
  for (int region = 0; region < g_.ranks; ++region) {
    direction.chunks[region] = arrivals.TokensOfPass(region, pass);
    tokens += direction.chunks[region].count;
  }
  arrivals.Expand(direction.chunks, direction.host_row_source, direction.runs);
  const Operand came = TravellingRows(direction.away, direction.format, g_.options.hidden, tokens);
  for (size_t i = 0; i < direction.runs.size(); ++i) {
    const IndexRange& r = direction.runs[i];
    direction.host_run_counts[i] = static_cast<int32_t>(r.count);
    UploadIndices(run.backend, run.stream, direction.host_row_source.data() + r.first, direction.row_source, r.first,
                  r.count);
  }
  UploadIndices(run.backend, run.stream, direction.host_run_counts.data(), direction.run_counts, 0,
                direction.runs.size());
  for (size_t i = 0; i < direction.runs.size(); ++i) {
    const IndexRange& r = direction.runs[i];
    run.backend.GatherRows(run.stream, came, direction.row_source.Columns(r.first, r.count),
                           direction.run_counts.Columns(i, 1), RowsOf(rows, r.first, r.count));
  }
}

void AllToAllExchange::BeginCombineBackward(Backend& backend, Stream& stream, Plan& plan, Operand d_out,
                                            MutableOperand d_rows) const {
  if (measuring_ || !wire_.ok()) return;
  Own(plan).d_results = d_rows;
  BeginTokens({backend, stream}, backward_, Own(plan), d_out);
}

void AllToAllExchange::AwaitCombineBackward(Backend& backend, Stream& stream, Plan& plan) const {
  if (measuring_ || !wire_.ok()) return;
  AwaitTokens({backend, stream}, backward_, Own(plan), Own(plan).d_results);
}

// --- results back to tokens -----------------------------------------------------------------------------------------

// Sums what can be summed here and sends it on its way.
void AllToAllExchange::StartResults(const BackendRun& run, ExchangeDirection& direction, RankPlan& plan,
                                    int64_t pass) const {
  run.backend.Synchronize(run.stream);  // the host's lists are written anew
  const ArrivalMap& arrivals = *plan.arrivals;
  int64_t results = 0;
  for (int region = 0; region < g_.ranks; ++region) {
    const int64_t made = arrivals.ListResults(region, arrivals.ResultTokensOfPass(region, pass),
                                              direction.host_members.data() + results * g_.width);
    direction.region_results[region] = made;
    results += made;
  }
  UploadIndices(run.backend, run.stream, direction.host_members.data(), direction.members, 0, results * g_.width);
  if (results > 0) {
    const ConstView members = direction.members.Rows(0, results);
    run.backend.CombineRows(run.stream, {direction.rows, members, members, kOneGroup, {}},
                            TravellingRows(direction.away, g_.act(), g_.options.hidden, results).values);
  }
  const int64_t row_bytes = g_.row_bytes(g_.act());
  wire_.Begin(run.stream);
  int64_t sent = 0;
  for (int i = 0; i < g_.last_peers(); ++i) {
    int64_t count = 0;
    for (int j = 0; j < g_.regions_per_peer(); ++j) count += direction.region_results[i * g_.regions_per_peer() + j];
    wire_.Send(direction.to_tokens, TravellingBytes(direction.away, row_bytes, sent, count), g_.LastPeer(i));
    sent += count;
    if (forwarder_ != nullptr) continue;
    const IndexRange came = plan.ResultsOfPass(i, pass);
    wire_.Receive(direction.to_tokens, TravellingBytes(direction.home, row_bytes, came.first, came.count), g_.Peer(i));
  }
  if (forwarder_ != nullptr) forwarder_->ReceiveResults(direction, plan, pass);
  direction.ticket = wire_.Start();
}

void AllToAllExchange::AwaitResults(const BackendRun& run, ExchangeDirection& direction, RankPlan& plan, ConstView base,
                                    View out) const {
  for (int64_t pass = 0; pass < plan.result_passes; ++pass) {
    if (!wire_.Await(run.stream, direction.ticket)) return;
    if (forwarder_ != nullptr) forwarder_->StartSums(run, direction, plan, pass);
    if (pass + 1 < plan.result_passes) StartResults(run, direction, plan, pass + 1);
    if (!wire_.Await(run.stream, direction.forwarded)) return;
  }
  if (!wire_.Await(run.stream, direction.ticket)) return;
  if (plan.tokens == 0) return;
  const int64_t results = plan.result_offsets.back();
  run.backend.CombineRows(
      run.stream,
      {TravellingRows(direction.home, g_.act(), g_.options.hidden, results).values,
       plan.slot_result.Rows(0, plan.tokens), plan.dispatch.experts, g_.shape.experts_per_group, base},
      out);
}

void AllToAllExchange::BeginCombine(Backend& backend, Stream& stream, Plan& plan, ConstView rows) const {
  if (measuring_ || !wire_.ok()) return;
  forward_.rows = rows;
  StartResults({backend, stream}, forward_, Own(plan), 0);
}

void AllToAllExchange::AwaitCombine(Backend& backend, Stream& stream, Plan& plan, ConstView base, View out) const {
  if (measuring_ || !wire_.ok()) return;
  AwaitResults({backend, stream}, forward_, Own(plan), base, out);
}

void AllToAllExchange::BeginDispatchBackward(Backend& backend, Stream& stream, Plan& plan, ConstView d_rows,
                                             ConstView d_row_weight) const {
  if (measuring_ || !wire_.ok()) return;
  const BackendRun run{backend, stream};
  StartWeights(run, Own(plan), d_row_weight);
  backward_.rows = d_rows;
  StartResults(run, backward_, Own(plan), 0);
}

void AllToAllExchange::StartWeights(const BackendRun& run, RankPlan& plan, ConstView d_row_weight) const {
  const ArrivalMap& arrivals = *plan.arrivals;
  const int64_t tokens = arrivals.tokens();
  if (tokens > 0) {
    run.backend.Synchronize(run.stream);  // the host's list is written anew
    for (int64_t i = 0; i < tokens * g_.width; ++i) choices_.away_rows[i] = std::max(0, arrivals.token_rows()[i]);
    UploadIndices(run.backend, run.stream, choices_.away_rows.data(), choices_.weight_rows, 0, tokens * g_.width);
    run.backend.ScatterChosen(run.stream, d_row_weight, choices_.weight_rows.Rows(0, tokens),
                              choices_.weights_away.Rows(0, tokens));
  }
  wire_.Begin(run.stream);
  for (int i = 0; i < g_.last_peers(); ++i) {
    const int first = i * g_.regions_per_peer();
    const int64_t begin = arrivals.first_token(first);
    const int64_t end = arrivals.first_token(first + g_.regions_per_peer());
    wire_.Send(ExchangeLeg::kDispatchBackwardWeight, choices_.weights_away.Rows(begin, end - begin), g_.LastPeer(i));
  }
  if (forwarder_ != nullptr) {
    forwarder_->ReceiveWeights(plan);
  } else {
    for (int i = 0; i < g_.peers(); ++i) {
      const int64_t first = plan.send_offsets[i];
      wire_.Receive(ExchangeLeg::kDispatchBackwardWeight,
                    choices_.weights_home.Rows(first, plan.send_offsets[i + 1] - first), g_.Peer(i));
    }
  }
  backward_.weights = wire_.Start();
}

void AllToAllExchange::AwaitWeightGradients(Backend& backend, Stream& stream, Plan& base_plan, View d_weights) const {
  if (measuring_) return;
  const BackendRun run{backend, stream};
  RankPlan& plan = Own(base_plan);
  if (!wire_.Await(stream, backward_.weights)) return;
  if (forwarder_ != nullptr && !forwarder_->ForwardWeights(run, plan, choices_.weights_home)) return;
  if (plan.tokens == 0) return;
  backend.ScatterChosen(stream, Flat(choices_.weights_home.Rows(0, plan.send_count())),
                        plan.slot_place.Rows(0, plan.tokens), d_weights);
}

void AllToAllExchange::AwaitDispatchBackward(Backend& backend, Stream& stream, Plan& plan, ConstView base,
                                             View dx) const {
  if (measuring_ || !wire_.ok()) return;
  AwaitResults({backend, stream}, backward_, Own(plan), base, dx);
}

}  // namespace shoestring
