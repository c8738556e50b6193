// Runs and their timing: CUDA graphs of unrolled launches between events.
#include <algorithm>
#include <array>
#include <utility>

#include "timing/cuda.h"

namespace mkwrap::timing {
namespace {

void enqueue(const CudaContext& context, const CudaLaunch& launch) {
  if (std::find(launch.grid.begin(), launch.grid.end(), 0u) != launch.grid.end()) return;
  std::vector<void*> parameters;
  parameters.reserve(launch.args.size());
  for (const std::uint64_t& value : launch.args)
    parameters.push_back(const_cast<std::uint64_t*>(&value));
  const Driver& driver = context.driver();
  driver.check(driver.launch(launch.function->handle(), launch.grid[0], launch.grid[1],
                             launch.grid[2], launch.threads, 1, 1, launch.shared_bytes,
                             context.stream(), parameters.data(), nullptr),
               "cuLaunchKernel");
}

void enqueue(const CudaContext& context, const CudaFill& fill) {
  if (fill.bytes == 0) return;
  context.driver().check(
      context.driver().fill(fill.address, fill.value, fill.bytes, context.stream()),
      "cuMemsetD8Async");
}

void enqueue(const CudaContext& context, const CudaRun& steps) {
  for (const auto& step : steps) {
    if (const auto* launch = std::get_if<std::shared_ptr<CudaLaunch>>(&step)) {
      enqueue(context, **launch);
    } else {
      enqueue(context, std::get<CudaFill>(step));
    }
  }
}

// A graph of unrolled runs, ready to replay.
class Replay {
 public:
  Replay(const CudaContext& context, const std::vector<CudaRun>& runs, int unroll)
      : context_(&context) {
    const Driver& driver = context.driver();
    driver.check(driver.capture_begin(context.stream(), kThreadLocalCapture),
                 "cuStreamBeginCapture");
    GraphHandle graph = nullptr;
    try {
      for (int k = 0; k < unroll; ++k)
        enqueue(context, runs[static_cast<std::size_t>(k) % runs.size()]);
    } catch (const DriverError&) {
      if (driver.capture_end(context.stream(), &graph) == 0 && graph != nullptr)
        driver.graph_destroy(graph);
      throw;
    }
    driver.check(driver.capture_end(context.stream(), &graph), "cuStreamEndCapture");
    const int result = driver.graph_instantiate(&executable_, graph, 0);
    driver.graph_destroy(graph);
    driver.check(result, "cuGraphInstantiate");
  }
  ~Replay() {
    if (executable_ != nullptr) context_->driver().graph_exec_destroy(executable_);
  }
  Replay(Replay&& other) noexcept
      : context_(other.context_), executable_(std::exchange(other.executable_, nullptr)) {}
  Replay(const Replay&) = delete;
  Replay& operator=(const Replay&) = delete;
  Replay& operator=(Replay&&) = delete;

  void launch() const {
    context_->driver().check(context_->driver().graph_launch(executable_, context_->stream()),
                             "cuGraphLaunch");
  }

 private:
  const CudaContext* context_;
  GraphExecHandle executable_ = nullptr;
};

class Event {
 public:
  explicit Event(const CudaContext& context) : context_(context) {
    context.driver().check(context.driver().event_create(&event_, 0), "cuEventCreate");
  }
  ~Event() { context_.driver().event_destroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record() const {
    context_.driver().check(context_.driver().event_record(event_, context_.stream()),
                            "cuEventRecord");
  }
  // Microseconds from `start` to this event, waiting for it.
  [[nodiscard]] double since(const Event& start) const {
    float milliseconds = 0;
    context_.driver().check(context_.driver().event_wait(event_), "cuEventSynchronize");
    context_.driver().check(context_.driver().event_elapsed(&milliseconds, start.event_, event_),
                            "cuEventElapsedTime");
    return 1000.0 * static_cast<double>(milliseconds);
  }

 private:
  const CudaContext& context_;
  EventHandle event_ = nullptr;
};

// Device memory to overwrite, so that the L2 holds nothing of use.
class Flush {
 public:
  Flush(CudaContext& context, std::size_t bytes)
      : context_(context), bytes_(bytes), address_(bytes == 0 ? 0 : context.allocate(bytes)) {}
  ~Flush() {
    if (bytes_ != 0) context_.free(address_);
  }
  Flush(const Flush&) = delete;
  Flush& operator=(const Flush&) = delete;
  void operator()() const { enqueue(context_, CudaFill{address_, 0, bytes_}); }

 private:
  CudaContext& context_;
  std::size_t bytes_;
  DeviceAddress address_;
};

void restore(const CudaContext& context, const std::vector<CudaCopy>& copies) {
  for (const CudaCopy& copy : copies) {
    if (copy.bytes == 0) continue;
    context.driver().check(
        context.driver().copy(copy.destination, copy.source, copy.bytes, context.stream()),
        "cuMemcpyDtoDAsync");
  }
}

}  // namespace

void run(const CudaContext& context, const CudaRun& run) {
  const Current current(context);
  enqueue(context, run);
  context.driver().check(context.driver().stream_wait(context.stream()), "cuStreamSynchronize");
}

std::vector<std::vector<double>> time_cuda(CudaContext& context,
                                           const std::vector<std::vector<CudaRun>>& candidates,
                                           const CudaPlan& plan) {
  const int unroll = std::max(plan.unroll, 1);
  const auto rounds = static_cast<std::size_t>(std::max(plan.rounds, 0));
  const Current current(context);
  const Flush flush(context, plan.flush_bytes);
  const Event start(context);
  const Event stop(context);
  std::vector<Replay> replays;
  for (const auto& runs : candidates) {
    if (runs.empty()) throw std::invalid_argument("a candidate needs at least one run");
    replays.emplace_back(context, runs, unroll);
  }
  std::vector<std::vector<double>> samples(candidates.size(), std::vector<double>(rounds));
  for (std::size_t round = 0; round < rounds; ++round) {
    for (std::size_t k = 0; k < replays.size(); ++k) {
      replays[k].launch();
      restore(context, plan.restore);
      flush();
      start.record();
      replays[k].launch();
      stop.record();
      samples[k][round] = stop.since(start) / unroll;
    }
  }
  return samples;
}

}  // namespace mkwrap::timing
