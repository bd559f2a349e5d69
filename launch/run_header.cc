// Body of the header.
#include "launch/run_header.h"

#include "absl/strings/str_cat.h"
#include "configs/print.h"
#include "configs/resolve.h"

namespace shoestring {

checkpoint::SnapshotHeader RunHeader(const config::RunConfig& config, const RunData& data, int64_t generation) {
  checkpoint::SnapshotHeader header;
  header.set_generation(generation);
  header.set_config_textproto(config::CanonicalText(config));
  header.set_numerics_hash(config::NumericsHash(config));
  header.set_run_hash(config::RunHash(config));
  header.set_data_hash(data.data_hash);
  header.set_tokenizer_fingerprint(data.tokenizer_fingerprint);
  header.set_layout(absl::StrCat(config::WorldSize(config.layout()), " rank, CPU"));
  return header;
}

}  // namespace shoestring
