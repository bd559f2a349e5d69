// Names of the special tokens.
#include "data/tokenizer_spec.h"

namespace shoestring {

std::vector<std::string> DeepSeekV3SpecialTokens() {
  return {"<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>",
          "<｜fim▁hole｜>",          "<｜fim▁begin｜>",       "<｜fim▁end｜>"};
}

}  // namespace shoestring
