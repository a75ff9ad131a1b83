#include "backends/redis/codec.h"

#include <fmt/format.h>
#include <hiredis/read.h>

#include <new>
#include <utility>

namespace relay::redis {

namespace {

// The library builds replies through these. An element of an array is made in its place, so that
// only the outermost reply is an object of its own. --------------------------------------------

/// Far more than any answer that is asked for here has: what claims more is no Redis server.
constexpr std::size_t kMostElements = 1 << 22;

/// Null: no memory, which the library reports as its own error.
Reply* make_reply(const redisReadTask* task) noexcept {
  if (task->parent == nullptr) return new (std::nothrow) Reply;
  auto* parent = static_cast<Reply*>(task->parent->obj);
  return &parent->elements[static_cast<std::size_t>(task->idx)];
}

void* create_string(const redisReadTask* task, char* text, std::size_t size) {
  Reply* reply = make_reply(task);
  if (reply == nullptr) return nullptr;
  reply->kind = task->type == REDIS_REPLY_STATUS  ? Reply::Kind::status
                : task->type == REDIS_REPLY_ERROR ? Reply::Kind::error
                                                  : Reply::Kind::text;
  reply->text.assign(text, size);
  return reply;
}

template <typename Count>  // int before hiredis 1.0, std::size_t since
void* create_array(const redisReadTask* task, Count elements) {
  const auto count = static_cast<std::size_t>(elements);
  if (count > kMostElements) return nullptr;
  Reply* reply = make_reply(task);
  if (reply == nullptr) return nullptr;
  reply->kind = Reply::Kind::array;
  reply->elements.resize(count);
  return reply;
}

void* create_integer(const redisReadTask* task, long long value) {
  Reply* reply = make_reply(task);
  if (reply == nullptr) return nullptr;
  reply->kind = Reply::Kind::integer;
  reply->integer = value;
  return reply;
}

void* create_nil(const redisReadTask* task) {
  return make_reply(task);
}

void free_reply(void* reply) {
  const std::unique_ptr<Reply> owned(static_cast<Reply*>(reply));
}

/// The table of the installed hiredis, as a template so that members it lacks can be left out.
template <typename Table>
Table functions() {
  Table table{};
  table.createString = &create_string;
  table.createArray = &create_array;
  table.createInteger = &create_integer;
  table.createNil = &create_nil;
  table.freeObject = &free_reply;
  // Since 1.0 it reads RESP3, too. No Redis server sends that unasked, and the relay does not ask.
  if constexpr (requires { table.createDouble; }) {
    table.createDouble = [](const redisReadTask* task, double, char* text, std::size_t size) {
      return create_string(task, text, size);
    };
    table.createBool = [](const redisReadTask* task, int value) {
      return create_integer(task, value);
    };
  }
  return table;
}

redisReplyObjectFunctions kFunctions = functions<redisReplyObjectFunctions>();

struct FreeReader {
  void operator()(redisReader* reader) const { redisReaderFree(reader); }
};

void append_length(std::string& out, char kind, std::size_t length) {
  const fmt::format_int text(length);
  out.push_back(kind);
  out.append(text.data(), text.size());
  out.append("\r\n", 2);
}

}  // namespace

void CommandWriter::begin(std::size_t arguments) {
  append_length(out_, '*', arguments);
}

void CommandWriter::add(std::string_view argument) {
  append_length(out_, '$', argument.size());
  out_.append(argument);
  out_.append("\r\n", 2);
}

void append_command(std::string& out, std::span<const std::string_view> arguments) {
  CommandWriter writer(out);
  writer.begin(arguments.size());
  for (const std::string_view argument : arguments) writer.add(argument);
}

void append_command(std::string& out, std::initializer_list<std::string_view> arguments) {
  append_command(out, std::span(arguments.begin(), arguments.size()));
}

struct ReplyReader::Impl {
  std::unique_ptr<redisReader, FreeReader> reader{redisReaderCreateWithFunctions(&kFunctions)};
};

ReplyReader::ReplyReader() : impl_(std::make_unique<Impl>()) {
  if (!impl_->reader) throw std::bad_alloc();
}

ReplyReader::~ReplyReader() = default;

void ReplyReader::feed(std::string_view bytes) {
  // What the library cannot keep it reports with the next reply.
  redisReaderFeed(impl_->reader.get(), bytes.data(), bytes.size());
}

Result<std::optional<Reply>> ReplyReader::next() {
  void* raw = nullptr;
  if (redisReaderGetReply(impl_->reader.get(), &raw) != REDIS_OK) {
    return fail(ErrorClass::transient, "protocol",
                fmt::format("what came is no answer of a Redis server: {}",
                            redisReaderGetError(impl_->reader.get())),
                "check that url leads to a Redis server, and whether it wants TLS (rediss://)");
  }
  if (raw == nullptr) return std::optional<Reply>();
  const std::unique_ptr<Reply> owned(static_cast<Reply*>(raw));
  return std::optional<Reply>(std::move(*owned));
}

}  // namespace relay::redis
