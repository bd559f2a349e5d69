// An exchange between ranks, once made, takes nothing from the heap, however many passes it makes.
#include <barrier>
#include <limits>

#include "tests/base/counting_heap.h"
#include "tests/parallel/exchange_world.h"

namespace shoestring {
namespace {

TEST(ExchangeHeapTest, JourneysAllocateNothing) {
  for (bool two_hop : {false, true}) {
    const ExchangeCase c = {
        .ranks = 4, .node_ranks = 2, .two_hop = two_hop, .act = DType::kBF16, .fp8 = true, .buffer_factor = 0.3};
    const WholeBatch whole(c, 1);
    std::barrier<> barrier(c.ranks);
    // The communicator now and then wants one more buffer, as messages happen to meet; the exchange, if it took
    // anything, would do so every time.
    int64_t fewest = std::numeric_limits<int64_t>::max();
    OnRanks(c.ranks, [&](int rank, std::unique_ptr<Communicator> group, Backend& backend, Stream& stream) {
      OwnArena arena(1 << 22);
      const std::unique_ptr<ExpertExchange> exchange = MakeExchangeOf(c, rank, *group, *arena);
      RankBatch batch(c, whole, rank, *exchange, *arena);
      for (int round = 0; round < 40; ++round) {
        barrier.arrive_and_wait();
        const int64_t before = HeapCalls();
        barrier.arrive_and_wait();
        batch.Forward(backend, stream);
        batch.Backward(backend, stream);
        barrier.arrive_and_wait();
        if (rank == 0) fewest = std::min(fewest, HeapCalls() - before);
      }
      EXPECT_TRUE(exchange->status().ok()) << exchange->status();
    });
    EXPECT_EQ(fewest, 0);
  }
}

}  // namespace
}  // namespace shoestring
