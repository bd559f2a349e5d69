// Traces: what is recorded adds up, nothing is allocated, and an exchange really travels while its partner computes.
#include "trainer/trace.h"

#include <algorithm>
#include <cstdio>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/trainer/layout_bench.h"

namespace shoestring {
namespace {

TracedInterval InFlight(const TracedCall& call) { return {call.times.started, call.times.wait_began}; }

// A piece of the other direction that lies wholly between the begin of an exchange and the wait for it.
bool IsHidden(const StepTrace& trace, const TracedInterval& in_flight) {
  return std::any_of(trace.pieces().begin(), trace.pieces().end(), [&](const TracedPiece& piece) {
    return piece.time.begin >= in_flight.begin && piece.time.end <= in_flight.end;
  });
}

struct TracedStep {
  int64_t overlapped = 0, hidden = 0;  // actions; exchanges that travelled while a whole piece was computed
  StepShares shares;
  std::vector<std::string> names;
};

// The second step of a small run, as rank 0 saw it.
TracedStep TraceRank0(const std::string& layout) {
  const config::RunConfig config = TinyConfig("BF16", absl::StrCat(R"(
    train { lanes: 4 expert_lanes: 1 phase { sequence_length: 12 steps: 12 micro_batch: 2 batch { sequences: 32 }
            learning_rate { constant: 0.003 } } }
    model { layers: 5 }
    layout { )",
                                                                   layout, " }"));
  TracedStep traced;
  const absl::Status status = RunThreadRanks(*Mesh::Create(config.layout()), [&](RankLinks links) -> absl::Status {
    const bool first = links.rank == Rank(0);
    const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
    ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> trainer,
                     Trainer::Create(config, FormulaData(config), *backend, RealClock(), {}, std::move(links)));
    RETURN_IF_ERROR(trainer->Step().status());
    StepTrace trace(RealClock());
    trace.Listen(trainer->links());
    ASSIGN_OR_RETURN(TrainStep * step, trainer->CurrentStep());
    trainer->SetTrace(&trace);
    RETURN_IF_ERROR(trainer->Step().status());
    trainer->SetTrace(nullptr);
    if (!first) return absl::OkStatus();
    EXPECT_EQ(trace.dropped(), 0);
    traced.shares = trace.Shares();
    for (const TracedAction& action : trace.actions()) {
      traced.names.push_back(ToString(action.action));
      traced.overlapped += action.action.kind == ActionKind::kOverlapped;
    }
    for (const TracedCall& call : trace.calls()) {
      EXPECT_LE(call.times.started, call.times.wait_began);
      EXPECT_LE(call.times.wait_began, call.times.wait_ended);
      traced.hidden += call.link == Link::kExperts && IsHidden(trace, InFlight(call));
    }
    std::vector<std::string> program;
    for (const Action& action : step->actions()) program.push_back(ToString(action));
    EXPECT_EQ(traced.names, program);
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  return traced;
}

// Two exchanges forward and two back in each layer with experts: while each of the four travels, a piece of the partner
// is computed. Without pairs no exchange has a whole piece to hide behind.
TEST(TraceTest, ExchangesTravelWhileThePartnerComputes) {
  const std::string ranks = "pipeline_ranks: 2 stages: 2 data_ranks: 2 expert_ranks: 2 ";
  const TracedStep pairs = TraceRank0(ranks + "dualpipe {}");
  EXPECT_GT(pairs.overlapped, 0);
  EXPECT_GE(pairs.hidden, 4 * pairs.overlapped);
  const TracedStep alone = TraceRank0(ranks + "one_f_one_b {}");
  EXPECT_EQ(alone.overlapped, 0);
  EXPECT_EQ(alone.hidden, 0);
  EXPECT_GT(pairs.shares.exchange_s, 0);
  EXPECT_GT(pairs.shares.exchange_hidden_s, 0);
  EXPECT_LE(pairs.shares.exchange_hidden_s, pairs.shares.exchange_s);
  std::printf("hidden share of exchange time: %.0f %% with pairs, %.0f %% without\n",
              100 * pairs.shares.exchange_hidden_s / pairs.shares.exchange_s,
              100 * alone.shares.exchange_hidden_s / alone.shares.exchange_s);
}

TEST(TraceTest, SharesAddUp) {
  const TracedStep traced = TraceRank0("pipeline_ranks: 2 stages: 2 data_ranks: 2 expert_ranks: 2 dualpipe {}");
  EXPECT_GT(traced.shares.compute_s, 0);
  EXPECT_LE(traced.shares.compute_s + traced.shares.bubble_s, traced.shares.step_s);
}

TEST(TraceTest, EventsBeyondItsRoomAreCounted) {
  StepTrace trace(RealClock(), 2);
  for (int i = 0; i < 5; ++i) {
    trace.BeginPiece();
    trace.EndPiece(true);
  }
  EXPECT_EQ(trace.pieces().size(), 2u);
  EXPECT_EQ(trace.dropped(), 3);
  trace.BeginStep();
  EXPECT_TRUE(trace.pieces().empty());
  EXPECT_EQ(trace.dropped(), 0);
}

}  // namespace
}  // namespace shoestring
