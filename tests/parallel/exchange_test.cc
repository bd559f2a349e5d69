// The exchange between ranks gives, to the bit, what one rank with all experts gives; and sends no row twice.
#include <atomic>
#include <set>

#include "kernels/shape_backend.h"
#include "parallel/loopback_communicator.h"
#include "tests/parallel/exchange_world.h"

namespace shoestring {
namespace {

constexpr int64_t kArenaBytes = 1 << 22;

// Runs two micro-batches, the backward of the first beside the forward of the second, and checks both; then hands
// `inspect` each rank's exchange.
void RunAndCheck(const ExchangeCase& c,
                 const std::function<void(int rank, const WholeBatch&, const ExpertExchange&)>& inspect = {}) {
  SCOPED_TRACE(c.ToString());
  const WholeBatch whole_a(c, 100), whole_b(c, 200);
  OnRanks(c.ranks, [&](int rank, std::unique_ptr<Communicator> group, Backend& backend, Stream& stream) {
    OwnArena arena(kArenaBytes);
    const std::unique_ptr<ExpertExchange> exchange = MakeExchangeOf(c, rank, *group, *arena);
    ASSERT_EQ(exchange->lanes(), c.ranks);
    ASSERT_EQ(exchange->local_experts(), c.local_experts());
    RankBatch a(c, whole_a, rank, *exchange, *arena);
    RankBatch b(c, whole_b, rank, *exchange, *arena);
    a.Forward(backend, stream);
    if (inspect) inspect(rank, whole_a, *exchange);
    a.BeginCombineBackward(backend, stream);
    b.BeginDispatch(backend, stream);
    a.AwaitCombineBackward(backend, stream);
    a.BeginDispatchBackward(backend, stream);
    b.AwaitDispatch(backend, stream);
    b.BeginCombine(backend, stream);
    a.AwaitDispatchBackward(backend, stream);
    b.AwaitCombine(backend, stream);
    b.Backward(backend, stream);
    EXPECT_TRUE(exchange->status().ok()) << exchange->status();
    a.Check();
    b.Check();
  });
}

TEST(ExchangeTest, DirectEqualsOneRank) {
  for (int ranks : {2, 4, 8}) {
    for (int64_t groups : {1, 2, 8, 16}) {
      for (int64_t chosen : {1, 2, 5, 8}) {
        RunAndCheck({.ranks = ranks, .chosen = chosen, .experts = 16, .groups = groups});
      }
    }
  }
}

TEST(ExchangeTest, TwoHopsEqualOneRank) {
  for (const auto& [ranks, node_ranks] :
       {std::pair(4, 2), std::pair(8, 2), std::pair(8, 4), std::pair(4, 4), std::pair(4, 1)}) {
    for (int64_t groups : {1, 2, 4, 8, 16}) {
      for (int64_t chosen : {1, 3, 8}) {
        RunAndCheck({.ranks = ranks,
                     .node_ranks = node_ranks,
                     .two_hop = true,
                     .chosen = chosen,
                     .experts = 16,
                     .groups = groups});
      }
    }
  }
}

TEST(ExchangeTest, EveryFormat) {
  for (bool two_hop : {false, true}) {
    for (int64_t hidden : {32, 33, 130}) {
      ExchangeCase c = {.ranks = 4, .node_ranks = 2, .two_hop = two_hop, .chosen = 4, .experts = 16};
      c.hidden = hidden;
      c.act = DType::kBF16;
      RunAndCheck(c);
      c.fp8 = true;
      RunAndCheck(c);
    }
  }
}

TEST(ExchangeTest, ForcedRouting) {
  for (bool two_hop : {false, true}) {
    for (Routing routing : {Routing::kOneExpert, Routing::kRankWithout, Routing::kOneNode}) {
      for (int64_t chosen : {1, 4}) {
        for (DType act : {DType::kF32, DType::kBF16}) {
          RunAndCheck({.ranks = 4,
                       .node_ranks = 2,
                       .two_hop = two_hop,
                       .chosen = chosen,
                       .experts = 16,
                       .act = act,
                       .routing = routing});
        }
      }
    }
  }
}

// A lane without tokens, then lanes with one.
TEST(ExchangeTest, HardlyAnyTokens) {
  for (bool two_hop : {false, true}) {
    for (int64_t tokens : {1, 2}) {
      RunAndCheck({.ranks = 4, .node_ranks = 2, .two_hop = two_hop, .tokens = tokens, .experts = 8});
    }
  }
}

// Rows of a list that a pass takes, as the page on the exchange has it.
int64_t PassRows(const ExchangeCase& c) {
  const double balanced = static_cast<double>(c.tokens * c.chosen) / c.ranks;
  return std::min(c.tokens, std::max<int64_t>(1, static_cast<int64_t>(std::ceil(c.buffer_factor * balanced))));
}

// What a rank sends and gets, from the choices alone.
struct ExpectedTraffic {
  ExchangeTraffic::Links sent, received;

  ExpectedTraffic(const ExchangeCase& c, const WholeBatch& whole, int rank, int64_t row_bytes) {
    const int64_t pass_rows = PassRows(c);
    std::vector<std::vector<int64_t>> rows(c.ranks, std::vector<int64_t>(c.ranks));  // one hop: from, to
    // From, to, pass. No two ranks meet in both hops: those of the first have the same place in different machines.
    std::set<std::tuple<int, int, int64_t>> messages;
    const auto add = [&](int from, int to, int64_t pass) {
      ++rows[from][to];
      messages.insert({from, to, pass});
    };
    for (int lane = 0; lane < c.ranks; ++lane) {
      std::vector<int64_t> list_rows(c.ranks);
      for (int64_t t = c.first_token(lane); t < c.first_token(lane + 1); ++t) {
        std::set<int> ranks, nodes;
        for (int64_t k = 0; k < c.chosen; ++k) {
          const int to = static_cast<int>(whole.experts.at(t, k)) / static_cast<int>(c.local_experts());
          ranks.insert(to);
          nodes.insert(to / c.node_ranks);
        }
        if (!c.two_hop) {
          for (int to : ranks) add(lane, to, list_rows[to]++ / pass_rows);
          continue;
        }
        for (int node : nodes) {
          const int forwarder = node * c.node_ranks + lane % c.node_ranks;
          const int64_t pass = list_rows[node]++ / pass_rows;
          add(lane, forwarder, pass);
          for (int to : ranks) {
            if (to / c.node_ranks == node) add(forwarder, to, pass);
          }
        }
      }
    }
    const auto count = [&](ExchangeTraffic::Links& links, int from, int to) {
      if (from == to || rows[from][to] == 0) return;
      ExchangeTraffic::Link& link = from / c.node_ranks == to / c.node_ranks ? links.within_node : links.between_nodes;
      link.rows += rows[from][to];
      link.bytes += rows[from][to] * row_bytes;
      for (const auto& [f, t, pass] : messages) link.messages += f == from && t == to ? 1 : 0;
    };
    for (int peer = 0; peer < c.ranks; ++peer) {
      count(sent, rank, peer);
      count(received, peer, rank);
    }
  }
};

void ExpectLink(const ExchangeTraffic::Link& got, const ExchangeTraffic::Link& want) {
  EXPECT_EQ(got.rows, want.rows);
  EXPECT_EQ(got.bytes, want.bytes);
  EXPECT_EQ(got.messages, want.messages);
}

// A token crosses to a rank, or with two hops to a machine, at most once, and is forwarded once to each rank there.
TEST(ExchangeTest, SendsEachTokenOnce) {
  for (bool two_hop : {false, true}) {
    for (double factor : {0.2, 2.0}) {
      for (bool fp8 : {false, true}) {
        ExchangeCase c = {.ranks = 8,
                          .node_ranks = 4,
                          .two_hop = two_hop,
                          .tokens = 29,
                          .chosen = 6,
                          .experts = 32,
                          .act = DType::kBF16,
                          .fp8 = fp8,
                          .buffer_factor = factor};
        RunAndCheck(c, [&](int rank, const WholeBatch& whole, const ExpertExchange& exchange) {
          const int64_t row_bytes = RowFormat{c.sent(), c.tile()}.bytes(c.hidden);
          EXPECT_EQ(row_bytes, fp8 ? c.hidden + 4 * 3 : 2 * c.hidden);
          const ExpectedTraffic want(c, whole, rank, row_bytes);
          const ExchangeTraffic traffic = exchange.traffic();
          ExpectLink(traffic[ExchangeLeg::kDispatch].sent.within_node, want.sent.within_node);
          ExpectLink(traffic[ExchangeLeg::kDispatch].sent.between_nodes, want.sent.between_nodes);
          ExpectLink(traffic[ExchangeLeg::kDispatch].received.within_node, want.received.within_node);
          ExpectLink(traffic[ExchangeLeg::kDispatch].received.between_nodes, want.received.between_nodes);
        });
      }
    }
  }
}

// With routing groups inside machines one row a token and group comes back over the network, else one a choice.
TEST(ExchangeTest, SumsBeforeResultsTravel) {
  for (int64_t groups : {1, 2, 16}) {
    const ExchangeCase c = {
        .ranks = 8, .node_ranks = 4, .two_hop = true, .tokens = 20, .chosen = 6, .experts = 32, .groups = groups};
    RunAndCheck(c, [&](int rank, const WholeBatch& whole, const ExpertExchange& exchange) {
      int64_t want = 0;
      for (int64_t t = c.first_token(rank); t < c.first_token(rank + 1); ++t) {
        std::set<int64_t> results;
        for (int64_t k = 0; k < c.chosen; ++k) {
          const auto e = static_cast<int64_t>(whole.experts.at(t, k));
          const bool elsewhere = e / (c.experts / 2) != rank / c.node_ranks;
          if (elsewhere) results.insert(groups == 1 ? e : e / (c.experts / groups));
        }
        want += static_cast<int64_t>(results.size());
      }
      EXPECT_EQ(exchange.traffic()[ExchangeLeg::kCombine].received.between_nodes.rows, want);
    });
  }
}

// Far less room than tokens: more passes, the same bits, with every kind of routing.
TEST(ExchangeTest, PassesWhenBuffersAreSmall) {
  for (bool two_hop : {false, true}) {
    for (double factor : {0.01, 0.1, 0.5}) {
      for (Routing routing : {Routing::kRandom, Routing::kOneExpert, Routing::kRankWithout}) {
        for (int64_t groups : {1, 8}) {
          ExchangeCase c = {.ranks = 4,
                            .node_ranks = 2,
                            .two_hop = two_hop,
                            .tokens = 31,
                            .chosen = 5,
                            .experts = 16,
                            .groups = groups,
                            .act = DType::kBF16,
                            .buffer_factor = factor,
                            .routing = routing};
          RunAndCheck(c);
        }
      }
    }
  }
}

// Buffers that receive tokens grow with the factor and never beyond every token from everybody.
TEST(ExchangeTest, MeasuresItself) {
  const ExchangeCase c = {.ranks = 8, .node_ranks = 4, .two_hop = true, .tokens = 64, .chosen = 2, .experts = 32};
  const auto bytes = [&](double factor) {
    ExchangeCase sized = c;
    sized.buffer_factor = factor;
    const std::unique_ptr<Communicator> group = MakeLoopbackCommunicator(c.ranks, 3);
    Arena arena = Arena::Measuring();
    const auto exchange = MakeExchangeOf(sized, 3, *group, arena);
    const int64_t taken = arena.high_water_bytes(Purpose::kExchange);
    EXPECT_EQ(taken, arena.high_water_bytes());
    // Journeys do nothing there, whatever they are handed.
    const std::unique_ptr<Backend> cpu = MakeCpuBackend({});
    const std::unique_ptr<Backend> shapes = MakeShapeBackend(*cpu);
    const std::unique_ptr<Stream> stream = shapes->MakeStream();
    const WholeBatch whole(c, 1);
    RankBatch batch(c, whole, 3, *exchange, arena);
    batch.Forward(*shapes, *stream);
    batch.Backward(*shapes, *stream);
    EXPECT_EQ(exchange->segments(batch.plan()).max_rows, exchange->max_rows());
    EXPECT_TRUE(exchange->status().ok());
    return taken;
  };
  EXPECT_LT(bytes(1), bytes(2));
  EXPECT_EQ(bytes(8), bytes(1000));
  // A rank takes what was measured, to the byte.
  Arena measure = Arena::Measuring();
  const std::unique_ptr<Communicator> group = MakeLoopbackCommunicator(c.ranks, 3);
  MakeExchangeOf(c, 3, *group, measure)->AllocatePlan(measure);
  OwnArena real(measure.used_bytes());
  MakeExchangeOf(c, 3, *group, *real)->AllocatePlan(*real);
  EXPECT_EQ((*real).used_bytes(), measure.used_bytes());
}

// A rank that leaves is told of by every other one; whatever they go on to do touches nothing they may not read.
TEST(ExchangeTest, FailureOfAPeerSurfaces) {
  for (bool two_hop : {false, true}) {
    const ExchangeCase c = {.ranks = 4, .node_ranks = 2, .two_hop = two_hop};
    const WholeBatch whole(c, 1);
    for (int journeys : {0, 1}) {  // that rank 2 takes part in
      OnRanks(c.ranks, [&](int rank, std::unique_ptr<Communicator> group, Backend& backend, Stream& stream) {
        OwnArena arena(kArenaBytes);
        const std::unique_ptr<ExpertExchange> exchange = MakeExchangeOf(c, rank, *group, *arena);
        RankBatch first(c, whole, rank, *exchange, *arena);
        RankBatch second(c, whole, rank, *exchange, *arena);
        if (journeys == 1) first.Forward(backend, stream);
        if (rank == 2) {
          group.reset();
          return;
        }
        EXPECT_TRUE(exchange->status().ok()) << exchange->status();
        if (journeys == 1) first.Backward(backend, stream);
        second.Forward(backend, stream);
        second.Backward(backend, stream);
        EXPECT_EQ(exchange->status().code(), absl::StatusCode::kUnavailable) << exchange->status();
        EXPECT_THAT(std::string(exchange->status().message()), testing::HasSubstr("member 2 "));
        for (int32_t offset : exchange->host_lane_offsets(second.plan())) EXPECT_EQ(offset, 0);
        EXPECT_EQ(exchange->segments(second.plan()).offsets.as<int32_t>()[c.local_experts()], 0);
      });
    }
  }
}

TEST(ExchangeTest, FactoryRefusesWhatDoesNotDivide) {
  const std::unique_ptr<Communicator> group = MakeLoopbackCommunicator(4, 0);
  Arena arena = Arena::Measuring();
  const auto made = [&](const ExchangeCase& c) {
    const config::LayoutConfig layout = LayoutOf(c);
    const absl::StatusOr<Mesh> mesh = Mesh::Create(layout);
    ExchangeOptions options;
    options.hidden = 8;
    return MakeExchange(layout, *mesh, Rank(0), c.shape(c.tokens), options, *group, arena).status();
  };
  EXPECT_TRUE(made({.ranks = 4, .experts = 8}).ok());
  EXPECT_EQ(made({.ranks = 4, .experts = 6, .groups = 1}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(made({.ranks = 4, .node_ranks = 3, .two_hop = true}).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace shoestring
