import { ShoalError } from './errors.js'
import type { Options } from './types.js'

const RENEW_BEFORE = 60_000 // ms before the end of a token, or a quarter of its time if that is less
const RETRY = 30_000 // where the local clock says that an accepted token has expired
const STILL_GOOD = 10_000

// tokensFrom gets tokens from the application and remembers the newest with the time of its end by the local clock.
export function tokensFrom(source: Options['token']) {
  let newest: string
  let expires = 0 // also of one that was refused

  // get returns a token: the newest one unless it was refused or is about to expire, or a fresh one in any case. It
  // rejects with a ShoalError, whatever the application's function does. A token that comes after the signal is not
  // remembered: it may be older than the newest one, and another user's.
  const get = async (signal: AbortSignal, fresh?: boolean): Promise<string> => {
    if (!fresh && expires - Date.now() > STILL_GOOD) return newest
    let got: unknown
    try {
      got = await source({ signal })
    } catch (cause) {
      throw new ShoalError('token', `token() failed: ${(cause as Error)?.message ?? cause}`, undefined, cause)
    }
    if (got === null) throw new ShoalError('logged_out', 'token() returned null: nobody is logged in')
    const { token, expiresAt } = (typeof got === 'object' ? got : { token: got }) as Record<string, unknown>
    if (!token || typeof token !== 'string') {
      throw new ShoalError('token', `token() returned ${token === '' ? '""' : typeof token}, want a string`)
    }
    if (!signal.aborted) {
      expires = Number(expiresAt ?? expiry(token)) || Infinity
      newest = token
    }
    return token
  }

  // refuse has the newest token not be used again.
  const refuse = () => {
    expires = 0
  }

  // renewIn returns the time in ms until the token that the server has accepted should be renewed.
  const renewIn = (): number => {
    const left = expires - Date.now()
    return left > 0 ? Math.max(left - Math.min(RENEW_BEFORE, left / 4), 1000) : RETRY
  }

  return { get, refuse, renewIn }
}

// expiry reads the claim exp. Where the token has iat too, its lifetime bounds the result, since the local clock may be
// behind. What is no JWT has none, and never expires.
function expiry(token: string): number | undefined {
  try {
    const { exp, iat } = JSON.parse(atob(token.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/')))
    return Math.min(exp * 1000, iat ? Date.now() + (exp - iat) * 1000 : Infinity)
  } catch {
    return undefined
  }
}
