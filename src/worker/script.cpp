// TorchScript modules for the worker: what tch has no functions for (buffers, copies, messages without C++ frames).

#include <ATen/core/Tensor.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/serialization/import.h>

#include <cstring>
#include <optional>
#include <sstream>
#include <string>

using torch::jit::Module;

namespace {

// Runs `run`; what it throws becomes a text in `error`, which the caller frees.
template <typename Run>
auto guarded(char** error, Run run) noexcept -> decltype(run()) {
  try {
    return run();
  } catch (const c10::Error& thrown) {
    *error = strdup(thrown.what_without_backtrace());
  } catch (const std::exception& thrown) {
    *error = strdup(thrown.what());
  } catch (...) {
    *error = strdup("an exception without a text");
  }
  return {};
}

}  // namespace

extern "C" {

// A module from the bytes of a file, on the CPU (-1) or on a GPU. Null if it fails.
Module* atflow_script_load(const char* data, size_t size, int gpu, char** error) noexcept {
  return guarded(error, [&] {
    // The plain executor runs operators as they are written, each call alike. The others recompile what they have seen run.
    torch::jit::getExecutorMode() = true;
    torch::jit::getProfilingMode() = false;
    std::istringstream stream(std::string(data, size));
    const auto device = gpu < 0 ? c10::Device(c10::kCPU) : c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(gpu));
    return new Module(torch::jit::load(stream, device));
  });
}

// A copy of a module with copies of its tensors. Null if it fails.
Module* atflow_script_copy(const Module* module, char** error) noexcept {
  return guarded(error, [&] { return new Module(module->deepcopy()); });
}

void atflow_script_free(Module* module) noexcept { delete module; }

// Training or evaluation mode. 0 if it fails.
int atflow_script_set_training(Module* module, int on, char** error) noexcept {
  return guarded(error, [&] {
    module->train(on != 0);
    return 1;
  });
}

// Gives the parameters (0) or the buffers (1), each with its name, to `take`, which owns the tensor then. 0 if it fails.
int atflow_script_tensors(const Module* module, int buffers, void (*take)(void*, const char*, at::Tensor*), void* to, char** error) noexcept {
  return guarded(error, [&] {
    const auto give = [&](const auto& named) { take(to, named.name.c_str(), new at::Tensor(named.value)); };
    if (buffers != 0) {
      for (const auto& named : module->named_buffers()) give(named);
    } else {
      for (const auto& named : module->named_parameters()) give(named);
    }
    return 1;
  });
}

// What `forward` returns for one tensor. Null if it fails.
at::Tensor* atflow_script_forward(Module* module, const at::Tensor* input, char** error) noexcept {
  return guarded(error, [&]() -> at::Tensor* {
    torch::jit::GraphOptimizerEnabledGuard unoptimised(false);
    const auto output = module->forward({*input});
    if (!output.isTensor()) throw std::runtime_error("forward returns " + output.type()->repr_str() + ", not a Tensor");
    return new at::Tensor(output.toTensor());
  });
}

}  // extern "C"
