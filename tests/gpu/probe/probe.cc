// Asks a GPU and its libraries what no document says; prints the answers as rows of a Markdown table.
//
//   probe [ITEM...]     items: device copy cublaslt attention nccl nccl_lsa; all of them if none is named
//
// Exit codes: 0 every item answered; 1 an item failed, as its row says; 64 usage; 69 no GPU.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <string>
#include <vector>

#include "tests/gpu/probe/report.h"

namespace {

struct Item {
  const char* name;
  void (*run)();
};
constexpr Item kItems[] = {
    {"device", shoestring::probe::ProbeDevice},     {"copy", shoestring::probe::ProbeCopy},
    {"cublaslt", shoestring::probe::ProbeCublasLt}, {"attention", shoestring::probe::ProbeAttention},
    {"nccl", shoestring::probe::ProbeNcclOne},      {"nccl_lsa", shoestring::probe::ProbeNcclLsa}};

bool RunItem(const Item& item) {
  try {
    item.run();
    return true;
  } catch (const shoestring::probe::Failure& failure) {
    shoestring::probe::Answer(item.name, "failed", failure.what());
    return false;
  }
}

const Item* Find(const std::string& name) {
  for (const Item& item : kItems) {
    if (name == item.name) return &item;
  }
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<const Item*> items;
  for (int i = 1; i < argc; ++i) {
    const Item* item = Find(argv[i]);
    if (item == nullptr) {
      std::fprintf(stderr, "probe: no item '%s'; there are: device copy cublaslt attention nccl nccl_lsa\n", argv[i]);
      return 64;
    }
    items.push_back(item);
  }
  if (items.empty()) {
    for (const Item& item : kItems) items.push_back(&item);
  }
  int devices = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&devices); error != cudaSuccess || devices == 0) {
    std::fprintf(stderr, "probe: no GPU: %s\n", error == cudaSuccess ? "none is visible" : cudaGetErrorString(error));
    return 69;
  }
  bool good = true;
  for (const Item* item : items) good &= RunItem(*item);
  return good ? 0 : 1;
}
