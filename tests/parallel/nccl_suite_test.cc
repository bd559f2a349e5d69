// The NCCL body through the parity suite of communicators, over a fake of the library whose streams are worked off by
// whoever enqueues, as the CPU backend does.
#include <numeric>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "parallel/nccl/nccl_communicator.h"
#include "tests/parallel/communicator_bodies.h"
#include "tests/parallel/communicator_suite.h"
#include "tests/parallel/fake_nccl.h"

namespace shoestring {
namespace {

CommunicatorBody NcclBody(int size) {
  return {.name = "nccl",
          .size = size,
          .run =
              [size](const std::function<void(Communicator&, Backend&)>& fn) {
                FakeNcclWorld world;
                const NcclId id = world.MakeId();
                std::vector<int> all(size);
                std::iota(all.begin(), all.end(), 0);
                std::vector<std::thread> ranks;
                for (int i = 0; i < size; ++i) {
                  ranks.emplace_back([&, i] {
                    const std::unique_ptr<Backend> backend = MakeCpuBackend({});
                    FakeNccl library(world, /*inline_streams=*/true);
                    NcclOptions options;
                    options.who = {.group = "all", .ranks = all, .index = i};
                    options.id = id;
                    absl::StatusOr<std::unique_ptr<Communicator>> mine =
                        MakeNcclCommunicator(library, std::move(options));
                    ASSERT_TRUE(mine.ok()) << mine.status();
                    fn(**mine, *backend);
                    mine->reset();
                  });
                }
                for (std::thread& rank : ranks) rank.join();
              },
          .sends_wait_for_nobody = false};
}

INSTANTIATE_TEST_SUITE_P(Bodies, CommunicatorSuite, testing::Values(NcclBody(1), NcclBody(2), NcclBody(3), NcclBody(8)),
                         [](const auto& info) { return info.param.name + std::to_string(info.param.size); });

}  // namespace
}  // namespace shoestring
