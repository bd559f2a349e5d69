// A safetensors file: a header whose tensors cover the file, or a refusal.
#include "base/check.h"
#include "tests/fuzz/memory_files.h"
#include "tests/fuzz/target.h"
#include "trainer/checkpoint/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shoestring;  // NOLINT: this file is one function
  MemoryFiles files({{"f", std::string(Bytes(data, size))}});
  const auto file = SafetensorsFile::Open(files, "f");
  if (!file.ok()) return 0;
  int64_t end = file->header().data_offset;
  std::string bytes;
  for (const SafetensorsEntry& entry : file->header().entries) {
    CHECK_EQ(entry.offset, end);
    bytes.resize(entry.size_bytes);
    CHECK(file->ReadAt(entry.offset, entry.size_bytes, bytes.data()).ok());
    end += entry.size_bytes;
  }
  CHECK_EQ(end, static_cast<int64_t>(size));
  return 0;
}
