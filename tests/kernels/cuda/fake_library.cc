// A library that a module needs: built once under the name of NCCL, once under one that is found nowhere.
extern "C" int fake_nccl_answer() { return 42; }
