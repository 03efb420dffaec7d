export { connect, type Shoal } from './client.js'
export { ShoalError } from './errors.js'
export type {
  Completed, ConnectionStatus, Failed, Follow, FollowOptions, Gap, Message, Options, OwnMessage, Position, Progress, Share,
  Token, UploadStatus,
} from './types.js'
