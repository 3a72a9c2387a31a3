"""Sessions, chats and streams: a question on its way to an answer."""
