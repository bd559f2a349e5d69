// The bodies of the communicator, each through the parity suite.
#include <thread>

#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "parallel/single_communicator.h"
#include "parallel/thread_communicator.h"
#include "tests/parallel/communicator_suite.h"

namespace shoestring {
namespace {

CommunicatorBody SingleBody() {
  return {"single", 1, [](const std::function<void(Communicator&, Backend&)>& fn) {
            const std::unique_ptr<Backend> backend = MakeCpuBackend({});
            const std::unique_ptr<Communicator> communicator = MakeSingleCommunicator(*backend);
            fn(*communicator, *backend);
          }};
}

CommunicatorBody ThreadBody(int size) {
  return {"thread", size, [size](const std::function<void(Communicator&, Backend&)>& fn) {
            ThreadWorld world(size);
            RankGroup group{"all", {}};
            for (int i = 0; i < size; ++i) group.members.push_back(Rank(i));
            std::vector<std::unique_ptr<Communicator>> communicators = world.MakeGroup(group);
            std::vector<std::thread> ranks;
            for (int i = 0; i < size; ++i) {
              ranks.emplace_back([&fn, mine = std::move(communicators[i])]() mutable {
                const std::unique_ptr<Backend> backend = MakeCpuBackend({});
                fn(*mine, *backend);
                mine.reset();  // leaves the group while others may still be in their last call
              });
            }
            for (std::thread& rank : ranks) rank.join();
          }};
}

INSTANTIATE_TEST_SUITE_P(Bodies, CommunicatorSuite,
                         testing::Values(SingleBody(), ThreadBody(1), ThreadBody(2), ThreadBody(3), ThreadBody(4),
                                         ThreadBody(8)),
                         [](const auto& info) { return info.param.name + std::to_string(info.param.size); });

TEST(SingleCommunicatorDeathTest, SendsToItselfMustPairUp) {
  const std::unique_ptr<Backend> backend = MakeCpuBackend({});
  const std::unique_ptr<Communicator> communicator = MakeSingleCommunicator(*backend);
  const std::unique_ptr<Stream> stream = backend->MakeStream();
  float x = 1;
  const View view(reinterpret_cast<std::byte*>(&x), DType::kF32, 1, 1);
  EXPECT_DEATH((void)communicator->Send(*stream, view, 0, {"test", 1}), "peer != index_");
  communicator->GroupBegin();
  ASSERT_TRUE(communicator->Send(*stream, view, 0, {"test", 1}).ok());
  EXPECT_DEATH((void)communicator->GroupEnd(), "receive < calls.size");
}

}  // namespace
}  // namespace shoestring
