// Makes a state, and keeps its master weights.
#include "trainer/numerics/initial_weights.h"

#include <algorithm>

#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cpu/cpu_backend.h"
#include "trainer/memory_block.h"
#include "trainer/train_state.h"

namespace shoestring {

absl::Status WriteInitialWeights(const config::RunConfig& config, int threads,
                                 const std::vector<StateTensor>& tensors) {
  const std::vector<Parameter> table = BuildParameterTable(config.model());
  CHECK_EQ(table.size(), tensors.size());
  const HeldTable held = HeldTable::Whole(table, /*copies=*/false);
  const StateFormat format{.activation = DType::kF32, .moments = DType::kBF16, .ema = false, .linear = {}};
  Arena measuring = Arena::Measuring();
  TrainState(measuring, held, format);
  ASSIGN_OR_RETURN(const MemoryBlock block, MemoryBlock::Map(measuring.high_water_bytes()));
  Arena arena(block.data(), block.size_bytes());
  TrainState state(arena, held, format);
  const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = threads});
  const std::unique_ptr<Stream> stream = backend->MakeStream();
  ThreadPool pool(threads);
  state.Initialize(*backend, *stream, pool, config.train().seed(), config.model().init_std());
  for (size_t i = 0; i < table.size(); ++i) {
    const View& master = state.parameter(i).master;
    std::copy_n(master.data, master.bytes(), tensors[i].view.data);
  }
  return absl::OkStatus();
}

}  // namespace shoestring
