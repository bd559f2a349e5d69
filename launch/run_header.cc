// Body of the header.
#include "launch/run_header.h"

#include "absl/strings/str_cat.h"
#include "configs/print.h"
#include "configs/resolve.h"
#include "trainer/checkpoint/read_state.h"

namespace shoestring {

checkpoint::SnapshotHeader RunHeader(const config::RunConfig& config, const RunData& data, int64_t generation,
                                     const std::string& instruction_set) {
  checkpoint::SnapshotHeader header;
  header.set_generation(generation);
  header.set_config_textproto(config::CanonicalText(config));
  header.set_numerics_hash(config::NumericsHash(config));
  header.set_run_hash(config::RunHash(config));
  header.set_data_hash(data.data_hash);
  header.set_tokenizer_fingerprint(data.tokenizer_fingerprint);
  const int64_t ranks = config::WorldSize(config.layout());
  const bool fast = config.train().reduction() == config::TrainConfig::FAST;
  header.set_layout(absl::StrCat(ranks, ranks == 1 ? " rank, " : " ranks, ",
                                 config::LayoutConfig::Device_Name(config.layout().device()), fast ? ", " : "",
                                 fast ? kFastSums : ""));
  header.set_instruction_set(instruction_set);
  return header;
}

std::optional<std::string> InstructionSetWarning(const checkpoint::SnapshotHeader& saved,
                                                 const checkpoint::SnapshotHeader& current) {
  if (saved.instruction_set().empty() || saved.instruction_set() == current.instruction_set()) return std::nullopt;
  return absl::StrCat("instruction set: ", saved.instruction_set(), " -> ", current.instruction_set(), "; from step ",
                      saved.step() + 1,
                      " on the bits differ from those of a run that never stopped (docs/numerics.md)");
}

}  // namespace shoestring
