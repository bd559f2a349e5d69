// Config text, overrides and Hugging Face's config.json: whatever they hold, a list of problems or a config.
#include "base/check.h"
#include "configs/hf_config.h"
#include "configs/load.h"
#include "configs/print.h"
#include "configs/validate.h"
#include "tests/fuzz/target.h"

// The first byte chooses the reader.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shoestring;  // NOLINT: this file is one function
  if (size == 0) return 0;
  const std::string text(Bytes(data + 1, size - 1));
  if (data[0] == 'j') {
    config::ImportHfConfig(text).status().IgnoreError();
    return 0;
  }
  const bool is_override = data[0] == 's';
  const auto loaded = is_override ? config::ParseConfig("", "fuzz", {text}) : config::ParseConfig(text, "fuzz");
  if (!loaded.ok()) return 0;
  if (!config::Validate(loaded->config, loaded->locations).ok()) return 0;
  // A valid config survives printing.
  const auto again = config::ParseConfig(config::CanonicalText(loaded->config), "printed");
  CHECK(again.ok());
  CHECK_EQ(config::CanonicalText(again->config), config::CanonicalText(loaded->config));
  return 0;
}
