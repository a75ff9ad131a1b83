#include "backends/nats/puller.h"

#include <fmt/core.h>
#include <nats/nats.h>
#include <simdjson.h>

#include <algorithm>
#include <utility>

#include "backends/nats/errors.h"
#include "backends/nats/pull_status.h"
#include "core/log.h"

namespace relay::nats {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kRequestLife{5000};
/// A server that lives answers a request at the end of its life at the latest.
constexpr milliseconds kSilence = kRequestLife + milliseconds(3000);
constexpr std::int64_t kMaxAckPending = 20000;
/// A figure older than that is not told any more.
constexpr milliseconds kFigureLife{3000};
constexpr milliseconds kAskEvery{500};

template <auto destroy>
struct Free {
  template <class T>
  void operator()(T* object) const {
    destroy(object);
  }
};
using StreamInfo = std::unique_ptr<jsStreamInfo, Free<&jsStreamInfo_Destroy>>;
using ConsumerInfo = std::unique_ptr<jsConsumerInfo, Free<&jsConsumerInfo_Destroy>>;

jsDeliverPolicy deliver_policy(std::string_view name) {
  if (name == "new") return js_DeliverNew;
  if (name == "last") return js_DeliverLast;
  if (name == "last_per_subject") return js_DeliverLastPerSubject;
  return js_DeliverAll;
}

std::string_view header(natsMsg* message, const char* name) {
  const char* value = nullptr;
  if (natsMsgHeader_Get(message, name, &value) != NATS_OK || value == nullptr) return {};
  return value;
}

std::string_view last_error() {
  const char* text = nats_GetLastError(nullptr);
  return text == nullptr ? std::string_view() : std::string_view(text);
}

/// What the server answers to a question about the consumer; nothing where it is no figure.
std::optional<std::int64_t> held_of(std::string_view json) {
  simdjson::dom::parser parser;
  const auto info = parser.parse(json.data(), json.size());
  std::int64_t pending = 0;
  std::int64_t unacknowledged = 0;
  if (info["num_pending"].get(pending) || info["num_ack_pending"].get(unacknowledged)) {
    return std::nullopt;
  }
  return pending + unacknowledged;
}

Error error(ErrorClass error_class, std::string code, std::string message,
            std::string remedy = {}) {
  return {error_class, std::move(code), std::move(message), std::move(remedy), {}};
}

}  // namespace

void Puller::FreeMessage::operator()(natsMsg* message) const {
  natsMsg_Destroy(message);
}
void Puller::FreeSubscription::operator()(natsSubscription* subscription) const {
  natsSubscription_Destroy(subscription);
}

Result<std::unique_ptr<Puller>> Puller::open(const SourceOptions& options,
                                             const Endpoint& endpoint) {
  auto connection = Connection::open(options.connection, endpoint);
  if (!connection) return fail(connection.error());
  std::unique_ptr<Puller> puller(new Puller(options));
  puller->connection_ = std::move(*connection);
  if (auto prepared = puller->prepare(); !prepared) return fail(prepared.error());
  return puller;
}

Puller::~Puller() = default;

Result<void> Puller::prepare() {
  if (auto checked = check_stream(true); !checked) return checked;
  if (auto checked = check_consumer(); !checked) return checked;
  // The consumer is of the stream that was looked at, and not of one that was made since.
  const std::int64_t created = stream_created_ns_;
  if (auto checked = check_stream(false); !checked) return checked;
  if (created != stream_created_ns_) return fail(remade());
  return subscribe();
}

Error Puller::failure(int status, int code, std::string_view doing) const {
  if (code == JSConsumerNotFoundErr || status == NATS_NOT_FOUND) {
    return error(ErrorClass::transient, "no_consumer",
                 fmt::format("stream '{}' at {} has no consumer '{}'", options_.stream,
                             connection_->address(), options_.consumer));
  }
  return stream_error(status, code, last_error(), options_.stream, connection_->address())
      .in_context(doing);
}

Error Puller::remade() const {
  return error(ErrorClass::transient, "stream_remade",
               fmt::format("stream '{}' at {}, or its consumer '{}', was deleted and made again",
                           options_.stream, connection_->address(), options_.consumer),
               "nothing is to be done: the new one is read");
}

Result<void> Puller::make_stream() {
  const Options& options = options_.connection;
  if (!options.create_stream || options.looks_only) {
    return fail(no_stream(options_.stream, options.stream_subjects, connection_->address()));
  }
  log::info("stream_made", options.pipeline, "there is no stream {}: it is made", options_.stream);
  return connection_->create_stream(options_.stream, options);
}

Result<void> Puller::check_stream(bool may_make) {
  jsStreamInfo* raw = nullptr;
  jsErrCode code = {};
  const natsStatus status =
      js_GetStreamInfo(&raw, connection_->jetstream(), options_.stream.c_str(), nullptr, &code);
  const StreamInfo info(raw);
  if (status != NATS_OK) {
    Error why = stream_error(status, code, last_error(), options_.stream, connection_->address());
    if (why.code != "no_stream" || !may_make) return fail(std::move(why));
    if (auto made = make_stream(); !made) return made;
    return check_stream(false);
  }
  stream_created_ns_ = info->Created;
  return {};
}

Result<void> Puller::check_consumer() {
  jsConsumerInfo* raw = nullptr;
  jsErrCode code = {};
  const natsStatus status =
      js_GetConsumerInfo(&raw, connection_->jetstream(), options_.stream.c_str(),
                         options_.consumer.c_str(), nullptr, &code);
  const ConsumerInfo info(raw);
  if (status == NATS_NOT_FOUND || code == JSConsumerNotFoundErr) return make_consumer();
  if (status != NATS_OK) return fail(failure(status, code, "looking for the consumer"));
  const jsConsumerConfig& config = *info->Config;
  const auto unfit = [&](std::string_view why) {
    return fail(error(
        ErrorClass::misconfigured, "unfit_consumer",
        fmt::format("consumer '{}' of stream '{}' {}", options_.consumer, options_.stream, why),
        "name another consumer, or delete this one: the relay makes it"));
  };
  if (config.DeliverSubject != nullptr && *config.DeliverSubject != '\0') {
    return unfit("pushes its messages; it has to be a pull consumer");
  }
  if (config.AckPolicy != js_AckExplicit) return unfit("does not take explicit acknowledgements");
  const std::string_view filter =
      config.FilterSubject == nullptr ? std::string_view() : config.FilterSubject;
  if (!options_.subject.empty() && filter != options_.subject) {
    return unfit(fmt::format("has the filter '{}', not '{}'", filter, options_.subject));
  }
  ack_wait_ = std::chrono::nanoseconds(config.AckWait);
  max_deliver_ = config.MaxDeliver;
  return {};
}

Result<void> Puller::make_consumer() {
  jsConsumerConfig config;
  jsConsumerConfig_Init(&config);
  config.Durable = options_.consumer.c_str();
  config.DeliverPolicy = deliver_policy(options_.deliver_policy);
  config.AckPolicy = js_AckExplicit;
  config.AckWait = std::chrono::nanoseconds(options_.ack_wait).count();
  config.MaxDeliver = options_.max_deliver == 0 ? -1 : options_.max_deliver;
  config.MaxAckPending = kMaxAckPending;
  if (!options_.subject.empty()) config.FilterSubject = options_.subject.c_str();
  jsConsumerInfo* raw = nullptr;
  jsErrCode code = {};
  const natsStatus status = js_AddConsumer(&raw, connection_->jetstream(), options_.stream.c_str(),
                                           &config, nullptr, &code);
  const ConsumerInfo info(raw);
  if (status != NATS_OK) {
    return fail(stream_error(status, code, last_error(), options_.stream, connection_->address())
                    .in_context("making the consumer"));
  }
  ack_wait_ = options_.ack_wait;
  max_deliver_ = config.MaxDeliver;
  return {};
}

Result<void> Puller::subscribe() {
  inbox_ = connection_->new_inbox();
  info_inbox_ = connection_->new_inbox();
  const std::string advisories = fmt::format("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{}.{}",
                                             options_.stream, options_.consumer);
  if (auto heard = listen(inbox_, messages_); !heard) return heard;
  if (auto heard = listen(advisories, advisories_); !heard) return heard;
  if (auto heard = listen(info_inbox_, infos_); !heard) return heard;
  // What is asked for bounds what can come.
  natsSubscription_SetPendingLimits(messages_.get(), -1, -1);
  heard_ = SteadyClock::now();
  return {};
}

Result<void> Puller::listen(const std::string& subject, Subscription& subscription) {
  natsSubscription* raw = nullptr;
  const natsStatus status =
      natsConnection_SubscribeSync(&raw, connection_->handle(), subject.c_str());
  if (status != NATS_OK) return fail(connection_lost(status, last_error(), connection_->address()));
  subscription.reset(raw);
  return {};
}

/// A request stands at the server until it is filled, or until its life ends.
Result<void> Puller::request(std::size_t max_bytes) {
  const auto expires = std::chrono::nanoseconds(kRequestLife).count();
  const std::string body = one_of_any_size_
                               ? fmt::format(R"({{"batch":1,"expires":{}}})", expires)
                               : fmt::format(R"({{"batch":{},"expires":{},"max_bytes":{}}})",
                                             options_.fetch, expires, max_bytes);
  const std::string subject =
      fmt::format("{}.CONSUMER.MSG.NEXT.{}.{}", options_.connection.api_prefix, options_.stream,
                  options_.consumer);
  const natsStatus status =
      natsConnection_PublishRequest(connection_->handle(), subject.c_str(), inbox_.c_str(),
                                    body.data(), static_cast<int>(body.size()));
  if (status != NATS_OK) {
    return fail(connection_lost(status, last_error(), connection_->address()));
  }
  // While nothing was asked for, nothing had to be heard.
  if (requested_ <= 0) heard_ = SteadyClock::now();
  requested_ = std::max<std::int64_t>(requested_, 0) + (one_of_any_size_ ? 1 : options_.fetch);
  one_of_any_size_ = false;
  return {};
}

Result<Puller::Received> Puller::next(milliseconds time, std::size_t max_bytes) {
  if (requested_ <= options_.fetch / 2) {
    if (auto asked = request(max_bytes); !asked) return fail(asked.error());
  }
  return take(time);
}

Result<Puller::Received> Puller::take(milliseconds time) {
  natsMsg* raw = nullptr;
  const natsStatus status = natsSubscription_NextMsg(&raw, messages_.get(), time.count());
  Received message(raw);
  if (status == NATS_TIMEOUT) {
    tell_of_given_up();
    if (requested_ <= 0 || SteadyClock::now() - heard_ < kSilence) return Received();
    return fail(error(ErrorClass::transient, "silent",
                      fmt::format("NATS at {} answers nothing any more", connection_->address()),
                      "if this stays, look at the server"));
  }
  if (status != NATS_OK) {
    return fail(connection_lost(status, last_error(), connection_->address()));
  }
  heard_ = SteadyClock::now();
  const auto code = natsMsg_GetDataLength(raw) == 0 ? header(raw, "Status") : std::string_view();
  if (code.empty()) {
    --requested_;
    return message;
  }
  if (auto noted = note_status(code, header(raw, "Description")); !noted) {
    return fail(noted.error());
  }
  return take(milliseconds(0));
}

std::optional<std::int64_t> Puller::held() {
  const auto now = SteadyClock::now();
  natsMsg* raw = nullptr;
  while (natsSubscription_NextMsg(&raw, infos_.get(), 0) == NATS_OK) {
    const Received answer(raw);
    held_ = held_of({natsMsg_GetData(raw), static_cast<std::size_t>(natsMsg_GetDataLength(raw))});
    held_at_ = now;
  }
  if (now - held_asked_at_ >= kAskEvery) {
    const std::string subject =
        fmt::format("{}.CONSUMER.INFO.{}.{}", options_.connection.api_prefix, options_.stream,
                    options_.consumer);
    natsConnection_PublishRequest(connection_->handle(), subject.c_str(), info_inbox_.c_str(),
                                  nullptr, 0);
    held_asked_at_ = now;
  }
  return now - held_at_ < kFigureLife ? held_ : std::nullopt;
}

/// A message without a body by which the server says how a request ended.
Result<void> Puller::note_status(std::string_view status, std::string_view text) {
  const PullStatus said = pull_status_of(status, text);
  if (said == PullStatus::alive) return {};
  requested_ = 0;
  if (said == PullStatus::too_large) one_of_any_size_ = true;
  if (said != PullStatus::failed) return {};
  return fail(error(ErrorClass::transient, "consumer_unavailable",
                    fmt::format("consumer '{}' of stream '{}' at {}: {} {}", options_.consumer,
                                options_.stream, connection_->address(), status, text),
                    "if this stays, look at the stream and its consumer"));
}

/// The server says when it delivers a message no more though it was not settled.
void Puller::tell_of_given_up() {
  natsMsg* raw = nullptr;
  while (natsSubscription_NextMsg(&raw, advisories_.get(), 0) == NATS_OK) {
    const Received advisory(raw);
    log::warn("max_deliver_reached", options_.connection.pipeline,
              "stream '{}' delivers a message to '{}' no more (max_deliver): {}", options_.stream,
              options_.consumer,
              std::string_view(natsMsg_GetData(raw),
                               static_cast<std::size_t>(natsMsg_GetDataLength(raw))));
  }
}

void Puller::answer(const std::string& reply, const char* what) {
  natsConnection_PublishString(connection_->handle(), reply.c_str(), what);
}

void Puller::give_back(milliseconds time) {
  if (closed()) return;
  // What the server sends until it knows of the end still arrives.
  natsSubscription_DrainTimeout(messages_.get(), time.count());
  const Deadline until = Deadline::after(time);
  natsStatus status = NATS_OK;
  while ((status == NATS_OK || status == NATS_TIMEOUT) && !until.passed()) {
    natsMsg* raw = nullptr;
    constexpr int kSliceMs = 10;
    status = natsSubscription_NextMsg(&raw, messages_.get(), kSliceMs);
    const Received message(raw);
    if (status == NATS_OK && natsMsg_GetReply(raw) != nullptr) {
      answer(natsMsg_GetReply(raw), "-NAK");
    }
  }
}

void Puller::flush(milliseconds time) {
  if (!connection_->closed()) natsConnection_FlushTimeout(connection_->handle(), time.count());
}

}  // namespace relay::nats
